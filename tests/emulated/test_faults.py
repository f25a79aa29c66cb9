"""Ranks on GPUs that die, stand still or wait: who it was, and in what; the CPU has gone on long before."""

import json
import os
import signal
import time
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.process import Run
from autotune.pipeline.control.ranks import Ranks
from autotune.records.failure import Failure
from autotune.records.job.workload import WorkloadConfig
from autotune.records.outcome import Measurement
from autotune.workload.gpt import Gpt
from tests.emulated.machine import model

P = 3
WORK = WorkloadConfig(
    stages=P, layers=6, hidden=16, heads=2, seq_len=8, vocab=32, batch=16, precision="fp32", optimizer="adamw"
)
BAD, GOOD = (Prepare(schedule="1F1B", micro_batches=16 // size, micro_batch_size=size, sequences=16) for size in (4, 2))
FOR_EVER = 10**15  # cycles


class SlowStage(nn.Sequential):
    """On the second micro-batch of a step of BAD its GPU does something for ever; Python goes on."""

    count = 0

    def forward(self, x):
        if x.shape[0] == BAD.micro_batch_size:
            self.count += 1
            if self.count == 2:
                torch.cuda._sleep(FOR_EVER)
        return super().forward(x)


@dataclass(frozen=True)
class SlowGpt(Gpt):
    """The built-in GPT in even stages, of which one is slow."""

    stage: int = 0

    def build_stage(self, layers, device):
        stage = super().build_stage(layers, device)
        return SlowStage(*stage.children()) if layers.start // len(layers) == self.stage else stage


def slow_rank(stage):
    """What a rank runs whose ``stage`` is slow."""
    return Run("tests.emulated.test_faults:serve_slow", (stage,))


def serve_slow(stage, *arguments):
    """Runs in the process of a rank."""
    from autotune.pipeline.rank.rank import serve

    serve(*arguments, partial(SlowGpt, stage=stage))


@pytest.mark.parametrize("stage", range(P), ids=["first", "middle", "last"])
def test_a_gpu_that_hangs_is_named_with_the_action_that_it_is_in(stage):
    with Ranks(P, "cuda", slow_rank(stage)) as ranks:
        build(ranks, WORK, BAD.placement)
        outcome = measure_candidate(ranks, WORK, BAD, 0.1, 2, lambda *_: True)
        healthy = measure_candidate(ranks, WORK, GOOD, 0.1, 2, lambda *_: True)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.rank, outcome.stage) == ("hang", stage, stage)
    assert outcome.action == f"the forward of micro-batch 1 on stage {stage}"
    assert isinstance(healthy, Measurement), healthy


def test_what_kills_a_rank_is_told_and_its_old_warnings_are_not():
    """NCCL warns when the first message makes a communicator; that is not why a rank is killed later."""
    with Ranks(P, "cuda") as ranks:
        build(ranks, WORK, GOOD.placement)
        pids = [rank.process.pid for rank in ranks._live]
        outcome = measure_candidate(ranks, WORK, GOOD, 0.1, 50, lambda number, _: kill(pids[1], number))
        healthy = measure_candidate(ranks, WORK, GOOD, 0.1, 2, lambda *_: True)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.rank) == ("crash", 1)
    assert "killed by signal 9" in outcome.message
    assert "Warning" not in outcome.message
    assert isinstance(healthy, Measurement), healthy


def kill(pid, number):
    """After the second step; the next command finds it dead."""
    if number == 1:
        os.kill(pid, signal.SIGKILL)
    return True


@pytest.mark.parametrize(("sign", "kind"), [(signal.SIGKILL, "crash"), (signal.SIGSTOP, "hang")])
def test_a_signal_in_the_midst_of_trials_costs_that_trial_alone(machine, sign, kind):
    flags = ("--micro-batches", "4,8", "--schedule", "GPipe,1F1B", "--exhaustive", "--budget", "200s")
    run = machine.start("-m", "autotune", "run", *model(batch=16), *flags)
    for line in run.stderr:
        if line.startswith("m = "):
            break
    time.sleep(0.5)
    ranks = [pid for pid, _, words in machine.entries() if words == "context on device 2"]
    os.kill(ranks[-1], sign)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, (out, err)
    report = json.loads((machine.folder / "report.json").read_text())
    failures = [row["failure"] for row in report["candidates"] if row["failure"]]
    assert len(failures) <= 1
    for failure in failures:
        assert (failure["kind"], failure["rank"]) == (kind, 2)
    assert report["sweet_spot"] is not None
