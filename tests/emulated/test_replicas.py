"""Replicas on emulated GPUs: reduced over NCCL in the last backward, or after the last action."""

import json

import pytest

from tests.emulated.machine import model


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_two_replicas_are_tuned_and_their_memory_is_as_predicted(machine, precision):
    flags = ("--data-parallel", 2, "--precision", precision, "--schedule", "1F1B,ZBVZeroBubble", "--exhaustive")
    done = machine.autotune(
        "run", *model(stages=2), *flags, "--micro-batches", "2,4", "--budget", "300s", timeout_s=400
    )
    assert done.code == 0, done
    assert machine.lines("misuse") == []
    report = json.loads((machine.folder / "report.json").read_text())
    ran = [row for row in report["candidates"] if row["measurement"]]
    assert {row["schedule"] for row in ran} >= {"1F1B", "ZBVZeroBubble"}
    assert [row["failure"] for row in report["candidates"] if row["failure"]] == []
    assert report["profile"]["reduction"]["in_backward"] == (precision == "fp32")
    assert report["soundness"]["findings"] == []
    for row in ran:
        real, predicted = (row[part]["peak_memory_bytes"] for part in ("measurement", "prediction"))
        assert predicted == pytest.approx(real, rel=0.02), row
        assert row["prediction"]["time_split_s"]["reduction"] > 0
