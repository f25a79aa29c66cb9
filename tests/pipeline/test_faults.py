"""The table of faults: real ones, on real ranks, on the first, a middle and the last of them.

Each is the outcome of the trial that it met, with the rank, what that was doing and what it said; the ranks are
replaced, and the next candidate runs.
"""

import time

import pytest

from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.records.failure import Failure
from autotune.records.job.workload import WorkloadConfig
from autotune.records.outcome import Measurement
from tests.pipeline.faults import FAULTS, faulty_rank

pytestmark = pytest.mark.slow  # ranks that are killed, hang or fail

P = 3
WORK = WorkloadConfig(
    stages=P, layers=6, hidden=16, heads=2, seq_len=8, vocab=32, batch=16, precision="fp32", optimizer="adamw"
)
BAD, GOOD = (Prepare(schedule="1F1B", micro_batches=16 // size, micro_batch_size=size, sequences=16) for size in (4, 2))
LIMIT = 64 * 2**20
EXPECTED = {
    "SIGKILL": ("crash", "the forward", "killed by signal 9 (Killed)"),
    "SIGSEGV": ("crash", "the forward", "killed by signal 11 (Segmentation fault)"),
    "SIGSTOP": ("hang", "the forward", "stopped by a signal"),
    "exit": ("crash", "the forward", "exited with status 3"),
    "out of memory": ("out_of_memory", "the forward", "can't allocate memory"),
    "stuck receive": ("hang", "the forward", "did not answer in time"),
    "exception in forward": ("model_error", "the forward", "RuntimeError: planted in the forward"),
    "exception in backward": ("model_error", "the backward", "RuntimeError: planted in the backward"),
    "exception in optimizer": ("model_error", "the optimizer step", "RuntimeError: planted in the optimizer"),
    "NaN loss": ("model_error", "", "of the first step is nan"),
}
STAGES = [pytest.param(stage, id=name) for stage, name in enumerate(("first", "middle", "last"))]
RECOVERY_S = 20.0  # on a machine that does other things too; it takes less than two


def test_the_table_is_complete():
    assert EXPECTED.keys() == set(FAULTS)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_the_outcome_of_its_trial_and_the_next_one_runs(fault, stage):
    kind, action, words = EXPECTED[fault]
    with Ranks(P, "cpu", faulty_rank(fault, stage, BAD.micro_batch_size), memory_limit=LIMIT) as ranks:
        build(ranks, WORK, BAD.placement)
        outcome = measure_candidate(ranks, WORK, BAD, 0.1, 2, lambda *_: True)
        begun = time.monotonic()
        healthy = measure_candidate(ranks, WORK, GOOD, 0.1, 2, lambda *_: True)
        recovered_s = time.monotonic() - begun
    assert isinstance(outcome, Failure)
    assert outcome.kind == kind, outcome
    assert words in outcome.message
    assert isinstance(healthy, Measurement), healthy
    assert recovered_s < RECOVERY_S
    if fault == "NaN loss":
        return  # it spreads: every rank's loss or gradients are no numbers
    assert outcome.rank == stage
    assert outcome.action.startswith(action)
    assert outcome.message.startswith(f"rank {stage}, {action}")
    if action != "the optimizer step":
        assert outcome.stage == stage
        assert f"of micro-batch 0 on stage {stage}" in outcome.action
    if fault == "out of memory":
        assert 0 < outcome.short_bytes < 2**23
