"""The tests that are meant for real GPUs pass on emulated ones, all but those of speed."""


def test_what_a_session_with_gpus_would_run(machine):
    from tests.emulated.machine import ROOT

    machine.environment["PYTHONPATH"] = str(ROOT)
    done = machine.run("-m", "pytest", "--timeout", 300, "-q", "-rs", ROOT / "tests" / "gpu", timeout_s=900)
    assert done.code == 0, done
    assert "needs two" not in done.out
