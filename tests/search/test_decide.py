"""What is timed next, and when to stop: by the belief alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autotune.records.prediction import Candidate, Uncertainty
from autotune.search.belief.belief import Belief
from autotune.search.decide import Kind, Situation, decide
from autotune.search.goal import Goal
from autotune.search.timing import Timing
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS

ROOT = Path(__file__).parents[2]

BEST_AT = [candidate.micro_batches for candidate in CANDIDATES].index(BEST)
EVERYBODY = tuple(CANDIDATES)


def believing(*visits, own=0.01, moment=0.0):
    """After visits (row, times as long as predicted) of two steps."""
    unsure = Uncertainty(common=0.04, overhead=0.0, own=own, moment=moment)
    belief = Belief(
        {c: one.model_copy(update={"uncertainty": unsure}) for c, one in zip(CANDIDATES, PREDICTIONS, strict=True)}
    )
    for number, (row, factor) in enumerate(visits):
        times = (PREDICTIONS[row].step_time_s * factor,) * 2
        belief.add(Timing(number, CANDIDATES[row], times, 200.0 * number))
    return belief


def situation(may_win=EVERYBODY, may_visit=EVERYBODY, ready_s=0.0, **rest):
    return Situation(may_win, may_visit, lambda candidate: ready_s, 1000.0, **rest)


def test_the_best_prediction_comes_first():
    action = decide(believing(), Goal(), situation())
    assert (action.kind, action.candidate) == (Kind.VISIT, CANDIDATES[BEST_AT])


def test_where_nothing_may_be_timed_there_is_nothing_to_do():
    assert decide(believing(), Goal(), situation(may_visit=())).kind is Kind.STOP
    assert decide(believing((3, 1.0)), Goal(), situation(may_visit=())).kind is Kind.STOP


def test_what_cannot_win_any_more_is_not_visited():
    """A good model, and the best prediction has run as predicted: its rival is 4 % behind."""
    action = decide(believing((3, 1.0), (4, 1.0), (3, 1.0), (4, 1.0), own=0.003), Goal(), situation())
    assert action.kind is Kind.STOP


def test_an_unsure_rival_is_visited():
    action = decide(believing((3, 1.0), own=0.08), Goal(), situation())
    assert action.kind in (Kind.VISIT, Kind.PAIR)
    assert action.candidate in (CANDIDATES[2], CANDIDATES[4])


def test_two_that_are_alike_on_a_noisy_machine_are_a_pair():
    factor = PREDICTIONS[3].step_time_s / PREDICTIONS[4].step_time_s
    belief = believing((3, 1.0), (4, factor), (3, 1.1), (4, 1.02 * factor), own=0.1, moment=0.08)
    action = decide(belief, Goal(), situation(may_win=CANDIDATES[3:5], may_visit=CANDIDATES[3:5]))
    assert action.kind is Kind.PAIR


def test_making_ready_at_a_cost_makes_staying_worth_more():
    """One step was timed of a rival; where coming back is dear, another one is timed while we are there."""
    kinds = []
    for ready_s in (0.0, 3000.0):
        belief = believing((3, 1.0), own=0.06)
        belief.begin(CANDIDATES[4])
        belief.see(PREDICTIONS[3].step_time_s, 400.0)
        kinds.append(decide(belief, Goal(), situation(ready_s=ready_s, is_there=True)).kind)
    assert kinds[1] is Kind.STAY


def test_nobody_stays_where_a_visit_has_ended():
    for number in range(4):
        belief = believing(*[(3, 1.0), (4, 0.96)] * (number + 1), own=0.05)
        assert decide(belief, Goal(), situation()).kind is not Kind.STAY


def test_a_wider_tolerance_stops_earlier():
    belief = believing((3, 1.0), own=0.03)
    assert decide(belief, Goal(tolerance=0.002), situation()).kind is not Kind.STOP
    assert decide(belief, Goal(tolerance=0.5), situation()).kind is Kind.STOP


def peaks(*sizes):
    return dict(zip(CANDIDATES, sizes, strict=True))


@pytest.mark.parametrize(("peak", "kind"), [(10, Kind.VISIT), (200, Kind.STOP)])
def test_with_memory_as_the_objective_a_leaner_candidate_that_may_be_fast_enough_is_visited(peak, kind):
    sizes = peaks(900, 900, 900, 100, peak, 900, 900)
    belief = believing((3, 1.0), own=0.01)
    action = decide(belief, Goal("memory", 0.05), situation(peaks=sizes))
    assert action.kind is kind
    if kind is Kind.VISIT:
        assert action.candidate == CANDIDATES[4]


def seconds_of_decisions() -> list[float]:
    """Of some with 200 candidates and 100 visits, by the processor's clock: other processes do not count."""
    many = {
        Candidate(micro_batches=m, micro_batch_size=64, sequences=64 * m, schedule="1F1B"): PREDICTIONS[3].model_copy(
            update={
                "step_time_s": 30.0 + (m % 17) / 10,
                "throughput_seq_s": 64 * m / 30.0,
                "uncertainty": Uncertainty(common=0.04, overhead=0.01 * m / 200, own=0.03),
            }
        )
        for m in range(1, 201)
    }
    belief, draw, names = Belief(many), np.random.default_rng(0), list(many)
    for number in range(100):
        candidate = names[int(draw.integers(160, 200))]
        times = tuple(many[candidate].step_time_s * draw.lognormal(0, 0.01, 2))
        belief.add(Timing(number, candidate, times, 100.0 * number))
    now = Situation(names, names, lambda candidate: 0.0, 10_000.0)
    spent = []
    for _ in range(7):
        begun = time.thread_time()
        decide(belief, Goal(), now)
        spent.append(time.thread_time() - begun)
    return spent


def test_a_decision_takes_less_than_20_ms_with_200_candidates_and_100_visits():
    """In a process whose BLAS has one thread: several that wait for a busy core spin, and their time counts."""
    code = f"from {__name__} import seconds_of_decisions; print(min(seconds_of_decisions()))"
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.020
