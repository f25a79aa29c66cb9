"""The whole program on emulated GPUs: profile, search under every schedule, report, and the scripts that it exports."""

import json

import pytest

from autotune.config import ScheduleName
from tests.emulated.machine import MIB, model

SCHEDULES = set(ScheduleName.__args__)
WITHIN = 0.02  # of the peak


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run in which every candidate is confirmed, with whatever it left."""
    from tests.emulated.machine import Machine

    machine = Machine(tmp_path_factory.mktemp("machine"))
    flags = ("--schedule", "all", "--micro-batches", "1,4,8", "--exhaustive", "--budget", "600s")
    done = machine.autotune("run", *model(), *flags, timeout_s=600)
    assert done.code == 0, done
    assert machine.lines("misuse") == []
    return machine, json.loads((machine.folder / "report.json").read_text())


def test_every_schedule_runs(ran):
    _, report = ran
    measured = {row["schedule"] for row in report["candidates"] if row["measurement"]}
    assert measured == SCHEDULES
    assert [row["failure"] for row in report["candidates"] if row["failure"]] == []
    assert report["status"] == "complete"
    assert report["environment"]["devices"] == ["NVIDIA A100-SXM4-80GB"] * 4


def test_peaks_are_as_predicted(ran):
    _, report = ran
    for row in report["candidates"]:
        real, predicted = (row[part]["peak_memory_bytes"] for part in ("measurement", "prediction"))
        for one, other in zip(predicted, real, strict=True):
            assert one == pytest.approx(other, rel=WITHIN), row


def test_no_pipeline_makes_communicators_that_were_not_there_when_memory_was_measured(ran):
    """Each takes some of the device outside of torch: of all ranks, and of each pair that sends to each other."""
    machine, report = ran
    made = [line.split(": ")[1] for line in machine.lines("note") if line.startswith("communicator")]
    pairs = [line for line in made if " of 2 " in line]
    neighbours = 4  # in a ring, for several stages per rank
    assert (len(made) - len(pairs), len(pairs)) == (4, 2 * neighbours)
    context, communicator = 450 * MIB, 32 * MIB
    expected = [context + count * communicator for count in (2, 3, 3, 2)]  # in a row
    assert report["profile"]["outside_bytes"] == expected


def test_the_exported_script_trains_as_was_measured(ran):
    machine, _ = ran
    done = machine.autotune("export", "report.json", "--to", "torch")
    assert done.code == 0, done
    (machine.folder / "pipeline.py").write_text(done.out)
    launched = machine.run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 4, "pipeline.py")
    assert launched.code == 0, launched
    assert "sequences/s" in launched.out
    assert machine.lines("misuse") == []


def test_the_default_search_ends_with_a_sweet_spot(machine):
    done = machine.autotune("run", *model(), "--budget", "60s")
    assert done.code == 0, done
    report = json.loads((machine.folder / "report.json").read_text())
    assert report["workload"]["precision"] == "bf16"
    assert report["sweet_spot"] is not None
