"""The rules of choice, on plain numbers and on draws."""

import numpy as np
import pytest

from autotune.search.belief.belief import Belief
from autotune.search.choose import SURE, certainty, pick, winner_of_each
from autotune.search.goal import Goal
from autotune.search.state import SearchState
from autotune.search.timing import Timing
from tests.search.machine import CANDIDATES, PREDICTIONS

SPEED, LEAN = Goal(), Goal("memory", 0.05)


def picked(*rows, goal=SPEED):
    """The index of the pick among (rate, peak) of candidates 0, 1, ..."""
    rates = dict(zip(CANDIDATES, (rate for rate, _ in rows), strict=False))
    peaks = dict(zip(CANDIDATES, (peak for _, peak in rows), strict=False))
    return CANDIDATES.index(pick(rates, peaks, goal))


def test_the_fastest_wins_when_it_stands_apart():
    assert picked((1.0, 50), (1.1, 900)) == 1


def test_a_tie_goes_to_the_lower_peak_memory():
    assert picked((1.0, 100), (0.995, 50), (0.5, 1)) == 1


def test_of_two_that_need_the_same_memory_the_faster_wins():
    assert picked((0.995, 50), (1.0, 50)) == 1


def test_unknown_memory_counts_as_most():
    assert picked((1.0, None), (0.995, 50)) == 1
    assert picked((0.995, None), (1.0, None)) == 1


@pytest.mark.parametrize(("rate", "index"), [(0.9905, 1), (0.9895, 0)])
def test_a_tie_is_as_wide_as_the_tolerance(rate, index):
    assert picked((1.0, 100), (rate, 50)) == index


def test_the_memory_objective_takes_the_leanest_within_the_tolerance():
    rows = ((1.0, 100), (0.96, 50), (0.94, 10))
    assert picked(*rows, goal=LEAN) == 1
    assert picked(*rows, goal=Goal("memory", 0.10)) == 2


def test_nothing_ran_nothing_wins():
    assert pick({}, {}, SPEED) is pick({}, {}, LEAN) is None


@pytest.mark.parametrize("goal", [SPEED, LEAN])
def test_the_winner_of_each_draw_is_picked_by_the_same_rule(goal):
    draw = np.random.default_rng(0)
    rates = draw.lognormal(0.0, 0.03, (200, 5))
    for peaks in ([3, 1, 2, 2, 5], [None, 1, 2, None, 0], [None] * 5):
        found = winner_of_each(np.log(rates), peaks, goal)
        expected = [picked(*zip(row, peaks, strict=True), goal=goal) for row in rates]
        assert found.tolist() == expected


def believing(steps_s):
    """A state and a belief after long visits to each of these candidates that all but settle their steps."""
    state = SearchState(dict(zip(CANDIDATES, PREDICTIONS, strict=True)))
    state.predictions = {
        candidate: one.model_copy(update={"peak_memory_bytes": None}) for candidate, one in state.predictions.items()
    }
    belief = Belief(state.predictions)
    for round_number in range(3):
        for number, (candidate, step_s) in enumerate(zip(CANDIDATES, steps_s, strict=False)):
            at_s = 1000.0 * (round_number * len(steps_s) + number)
            belief.add(Timing(number, candidate, (step_s,) * 20, at_s))
    return belief, state


def test_a_pick_that_is_settled_is_sure():
    best = PREDICTIONS[3].step_time_s
    belief, state = believing(
        [one.step_time_s if one.step_time_s == best else 1.05 * one.step_time_s for one in PREDICTIONS]
    )
    sure = certainty(belief, CANDIDATES[3], state)
    assert sure.probability > 0.99
    assert sure.others == ()


def test_a_pick_that_is_not_names_the_fewest_others_that_make_it_so():
    belief = Belief(dict(zip(CANDIDATES, PREDICTIONS, strict=True)))
    state = SearchState(belief.predictions)
    best = max(CANDIDATES, key=lambda one: belief.predictions[one].throughput_seq_s)
    found = certainty(belief, best, state)
    if found.probability < SURE:
        together = found.shares[best] + sum(found.shares[one] for one in found.others)
        assert together >= SURE
        assert together - found.shares[found.others[-1]] < SURE
    assert sum(found.shares.values()) == pytest.approx(1.0)
