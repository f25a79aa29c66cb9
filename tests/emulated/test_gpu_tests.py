"""The tests that are meant for real GPUs pass on emulated ones, all but those of speed."""

from tests.emulated.machine import ROOT


def test_what_a_session_with_gpus_would_run(machine):
    machine.environment["PYTHONPATH"] = str(ROOT)
    done = machine.run("-m", "pytest", "--timeout", 300, "-q", "-rs", ROOT / "tests" / "gpu", timeout_s=900)
    assert done.code == 0, done
    assert "needs 2" not in done.out
    page = done.out.split("please send this page to the authors")[1]
    for name in ("devices", "NCCL", "out of memory", "message of", "ZBVZeroBubble", "predicted peak memory", "m = 1"):
        assert f"\n{name}" in page, page
