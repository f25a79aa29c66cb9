"""The rules of choice, on plain numbers."""

import pytest

from autotune.predict.predict import candidates_for, predict
from autotune.profile.record import Profile
from autotune.search.choose import eligible, fastest, find_knee, is_tied, pareto_front, pick, why_not
from autotune.search.prospects import Goal, Standing

SPEED = Goal()
LEAN = Goal("memory", 0.05)


def standings(*rows):
    """(rate, sigma, peak) of candidates 0, 1, ..."""
    return {index: Standing(index, *row) for index, row in enumerate(rows)}


def test_the_fastest_wins_when_it_stands_apart():
    found = standings((1.0, 0.001, 50), (1.1, 0.001, 900))
    assert eligible(found, SPEED) == [1]
    assert pick(found, SPEED) == fastest(found) == 1


def test_a_tie_goes_to_the_lower_peak_memory():
    found = standings((1.0, 0.001, 100), (0.995, 0.001, 50), (0.5, 0.001, 1))
    assert eligible(found, SPEED) == [0, 1]
    assert pick(found, SPEED) == 1


def test_of_two_that_need_the_same_memory_the_faster_wins():
    assert pick(standings((0.995, 0.001, 50), (1.0, 0.001, 50)), SPEED) == 1


def test_unknown_memory_counts_as_most():
    assert pick(standings((1.0, 0.001, None), (0.995, 0.001, 50)), SPEED) == 1


@pytest.mark.parametrize(
    ("rate", "sigma", "tied"),
    [(0.995, 0.0, True), (0.985, 0.0, False), (0.985, 0.008, True), (0.97, 0.5, False)],
)
def test_noise_makes_a_tie_wider_than_one_percent_but_not_than_two(rate, sigma, tied):
    one, other = standings((1.0, sigma, 1), (rate, sigma, 1)).values()
    assert is_tied(one, other, 0.01) is is_tied(other, one, 0.01) is tied


def test_the_memory_objective_takes_the_leanest_within_the_tolerance():
    found = standings((1.0, 0.001, 100), (0.96, 0.001, 50), (0.94, 0.001, 10))
    assert eligible(found, LEAN) == [0, 1]
    assert pick(found, LEAN) == 1
    assert pick(found, Goal("memory", 0.10)) == 2


def test_nothing_ran_nothing_wins():
    assert pick({}, SPEED) is pick({}, LEAN) is None


def test_the_knee_is_the_smallest_m_within_one_percent_with_its_neighbours():
    candidates = candidates_for((4, 8, 16, 32), ("1F1B",), (1,), 4, 48, 64)[0]
    found = standings((0.9, 0, 1), (0.995, 0, 1), (1.0, 0, 1), (0.8, 0, 1))
    knee = find_knee(2, candidates, found)
    assert (knee.index, knee.fewer, knee.more, knee.best) == (1, 0, 2, 1.0)


def test_gpipe_stands_in_for_1f1b_on_the_curve_and_other_schedules_do_not():
    candidates = candidates_for((1, 2, 4, 8), ("1F1B", "GPipe"), (1,), 4, 48, 64)[0]
    assert [(c.micro_batches, c.schedule) for c in candidates[:2]] == [(1, "GPipe"), (2, "GPipe")]
    rates = {("GPipe", 8): 9.0, ("1F1B", 8): 1.0}
    found = {
        index: Standing(index, rates.get((c.schedule, c.micro_batches), 0.5 + c.micro_batches / 100), 0.0, 1)
        for index, c in enumerate(candidates)
    }
    winner = next(i for i, c in enumerate(candidates) if (c.schedule, c.micro_batches) == ("1F1B", 8))
    knee = find_knee(winner, candidates, found)
    assert knee.index == winner
    assert knee.best == 1.0  # GPipe's own m = 8 is not on this curve
    assert (candidates[knee.fewer].schedule, candidates[knee.fewer].micro_batches) == ("1F1B", 4)
    assert knee.more is None


def test_the_pareto_front_holds_what_nothing_beats_in_both():
    found = standings((1.0, 0, 100), (0.9, 0, 50), (0.8, 0, 60), (0.7, 0, 10), (2.0, 0, None))
    assert pareto_front(found) == [3, 1, 0]


def test_small_m_loses_to_the_bubble_and_large_m_to_granularity():
    rows = [{"micro_batch_size": b, "t_f": 0.5 + b, "t_bw": 1.0 + 2 * b} for b in (1, 2, 4, 8, 16)]
    profile = Profile.model_validate({"stages": [{"time_s": rows}] * 4})
    candidates = candidates_for((1, 4, 16), ("GPipe",), (1,), 4, 4, 16)[0]
    predictions = [predict(profile, candidate, None) for candidate in candidates]
    assert why_not(0, 1, predictions, candidates) == "bubble"
    assert why_not(2, 1, predictions, candidates) == "granularity"
