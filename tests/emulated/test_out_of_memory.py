"""Candidates that run out of GPU memory are outcomes, told in a few words."""

import json

from tests.emulated.machine import MIB, model


def test_a_candidate_that_runs_out_of_memory_is_an_outcome(machines):
    """Tried although the prediction says that it does not fit."""
    machine = machines(device_bytes=220 * MIB, context_bytes=20 * MIB, nccl_bytes=4 * MIB)
    flags = ("--micro-batches", "2,32", "--schedule", "GPipe", "--explore-limit", "--exhaustive", "--budget", "120s")
    done = machine.autotune("run", *model(stages=2, batch=64, seq_len=64, vocab=4096), *flags, timeout_s=400)
    assert done.code == 0, done
    report = json.loads((machine.folder / "report.json").read_text())
    failed = {row["micro_batches"]: row["failure"] for row in report["candidates"] if row["failure"]}
    assert 2 in failed
    for failure in failed.values():
        assert failure["kind"] == "out_of_memory"
        assert "CUDA out of memory. Tried to allocate" in failure["message"]
        assert "http" not in failure["message"]
        assert "PYTORCH" not in failure["message"]


def test_the_limit_of_the_user_is_the_wall(machines):
    machine = machines()
    flags = ("--micro-batches", "2,32", "--schedule", "GPipe", "--memory-limit", "700MiB", "--budget", "120s")
    done = machine.autotune("run", *model(stages=2, batch=64, seq_len=64, vocab=4096), *flags, timeout_s=400)
    assert done.code == 0, done
    report = json.loads((machine.folder / "report.json").read_text())
    assert report["memory_limit_bytes"] == 700 * MIB
    for row in report["candidates"]:
        if row["measurement"]:
            assert max(row["measurement"]["device_memory_bytes"]) <= 700 * MIB
