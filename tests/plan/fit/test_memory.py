"""Peak memory of ranks, learned from the peaks of a few runs."""

import pytest

from autotune.plan.fit.memory import RankMemory, learn_memory, sequences_in_flight
from autotune.records.prediction import Candidate
from autotune.records.timed_run import TimedRun

STATIC, EACH = 10 * 2**30, 2**28


def candidate(m, b, schedule="1F1B", v=1):
    return Candidate(micro_batches=m, micro_batch_size=b, sequences=m * b, schedule=schedule, virtual_stages=v)


def run(m, b, ranks=4, schedule="1F1B", peaks=None):
    held = sequences_in_flight(ranks, candidate(m, b, schedule))
    own = tuple(STATIC + rank * 2**30 + EACH * one for rank, one in enumerate(held))
    return TimedRun(
        micro_batches=m, micro_batch_size=b, step_time_s=1.0, schedule=schedule, peak_memory_bytes=peaks or own
    )


def test_what_is_in_flight():
    assert sequences_in_flight(4, candidate(16, 2)) == (8, 6, 4, 2)
    assert sequences_in_flight(4, candidate(16, 2, "GPipe")) == (32,) * 4
    assert sequences_in_flight(4, candidate(2, 8)) == (16, 16, 16, 8)


@pytest.mark.parametrize("runs", [[run(16, 1), run(8, 2)], [run(16, 1), run(16, 1, schedule="GPipe"), run(2, 8)]])
def test_two_or_three_runs_solve_every_rank(runs):
    memory = learn_memory(4, runs)
    for rank, one in enumerate(memory):
        assert one.static == pytest.approx(STATIC + rank * 2**30, abs=64)
        assert one.activations == pytest.approx(EACH, abs=64)
    expected = run(4, 4).peak_memory_bytes
    assert [one.peak(16 - 4 * rank) for rank, one in enumerate(memory)] == pytest.approx(expected, rel=1e-6)


def test_the_fullest_rank_alone_stands_for_all():
    runs = [run(16, 1, peaks=(STATIC + 4 * EACH,)), run(8, 2, peaks=(STATIC + 8 * EACH,))]
    memory = learn_memory(4, runs)
    assert len(set(memory)) == 1
    assert memory[0].peak(16) == pytest.approx(STATIC + 16 * EACH, abs=64)


@pytest.mark.parametrize(
    "runs",
    [
        [run(16, 1)],  # one count of sequences in flight
        [run(16, 1), run(32, 1)],  # the same count twice
        [run(16, 1), run(8, 2, peaks=(1, 2))],  # peaks of another number of ranks
        [TimedRun(micro_batches=4, micro_batch_size=1, step_time_s=1.0)],  # none
    ],
)
def test_what_does_not_solve_it(runs):
    assert learn_memory(4, runs) is None


def test_neither_part_is_below_zero():
    falling = [run(16, 1, peaks=(1000,)), run(8, 2, peaks=(900,))]
    assert learn_memory(4, falling)[0] == RankMemory(1000, 0.0)
    steep = [run(16, 1, peaks=(100,)), run(8, 2, peaks=(900,))]
    assert learn_memory(4, steep)[0].static == 0
