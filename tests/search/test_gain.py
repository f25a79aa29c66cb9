"""Expected gains in closed form, against numbers that are drawn."""

from statistics import NormalDist

import numpy as np
import pytest

from autotune.search.belief.belief import Belief
from autotune.search.gain import Outlook, expected_gain, expected_positive_part, gain_per_repetition, normal_cdf
from autotune.search.timing import Timing
from tests.search.machine import CANDIDATES, PREDICTIONS


def test_the_normal_distribution_function_is_that_of_the_standard_library():
    z = np.linspace(-6, 6, 101)
    assert normal_cdf(z) == pytest.approx([NormalDist().cdf(one) for one in z], abs=1e-7)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.01), (-0.02, 0.01), (0.03, 0.01), (-0.05, 0.04)])
def test_the_expected_positive_part_is_that_of_draws(mean, sd):
    draws = mean + sd * np.random.default_rng(0).standard_normal(2_000_000)
    found = expected_positive_part(np.array([mean]), np.array([sd]))
    assert found == pytest.approx(np.maximum(0, draws).mean(), abs=3e-5)


def test_learning_nothing_gains_nothing_and_learning_more_gains_more():
    mean, is_new = np.array([-0.02, 0.01]), np.array([False, False])
    assert expected_gain(mean, np.zeros(2), is_new) == pytest.approx(0, abs=1e-9)
    gains = [expected_gain(mean, np.full(2, sd**2), is_new) for sd in (0.005, 0.01, 0.02)]
    assert (np.diff(gains, axis=0) > 0).all()


def test_who_has_not_run_gains_by_being_ahead_too():
    assert expected_gain(np.array([0.01]), np.zeros(1), np.array([True])) == pytest.approx(0.01)


def price_of_stopping(mean, variance, most=40):
    """The price of one observation with this ``variance`` at which it is just worth to begin to observe how far ahead a
    rival is, N(mean, 1) now, and to go on for as long as that pays: by dynamic programming over posterior means."""
    at, nodes = np.linspace(-8, 8, 1601), np.polynomial.hermite_e.hermegauss(41)
    left = 1 / (1 + np.arange(most + 1) / variance)  # posterior variance after so many
    moves = np.sqrt(left[:-1] - left[1:])

    def is_worth_it(price):
        value = np.maximum(at, 0)
        for move in moves[::-1]:
            ahead = sum(w * np.interp(at + move * z, at, value) for z, w in zip(*nodes, strict=True))
            going_on = ahead / nodes[1].sum() - price
            value = np.maximum(np.maximum(at, 0), going_on)
        return np.interp(mean, at, going_on) > max(mean, 0)

    low, high = 1e-6, 1.0
    for _ in range(16):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if is_worth_it(middle) else (low, middle)
    return low


@pytest.mark.parametrize(
    ("mean", "variance", "least"), [(0, 0.1, 0.97), (-0.5, 0.1, 0.97), (0, 4, 0.97), (-0.5, 4, 0.8), (-1, 4, 0.55)]
)
def test_repetitions_are_worth_no_more_than_to_one_who_stops_at_the_best_moment_and_not_much_less(
    mean, variance, least
):
    found = gain_per_repetition(np.array([float(mean)]), np.ones(1), variance, np.array([False]))[0]
    assert least < found / price_of_stopping(mean, variance) < 1.03


def outlook(*rows, steps=2, are_alike=False):
    """After a visit to each of ``rows`` that took as long as predicted, or as long as the best of all."""
    belief = Belief(dict(zip(CANDIDATES, PREDICTIONS, strict=True)))
    for number, row in enumerate(rows):
        times = (PREDICTIONS[3 if are_alike else row].step_time_s,) * steps
        belief.add(Timing(number, CANDIDATES[row], times, 200.0 * number))
    everybody = np.ones(len(CANDIDATES), bool)
    cost = 2 * np.exp(belief.expected_log_step())
    return Outlook(belief, 3, everybody, everybody, cost, 200.0 * len(rows))


def test_what_a_visit_gains_is_what_draws_of_its_outcome_say():
    """Of a candidate that has not run: its step and what a visit would show are drawn, and regressed on each other."""
    now = outlook(3, 0)
    draws = now.belief.draws(200_000, seed=5)
    random = np.random.default_rng(1)
    ahead = draws.of(4) - draws.of(3)
    visit = now.belief.grid.visit_sd[now.h.at] ** 2 + now.belief.grid.drift_sd[now.h.at] ** 2
    seen = draws.of(4) + random.standard_normal(len(ahead)) * float(now.h.weight @ visit + now.belief.noise**2) ** 0.5
    bins = np.digitize(seen, np.quantile(seen, np.linspace(0, 1, 200)[1:-1]))
    means = np.bincount(bins, ahead) / np.bincount(bins)
    drawn = (np.bincount(bins) / len(bins)) @ np.maximum(0, means)
    assert now.of_visits()[4] == pytest.approx(drawn * now.is_clean, rel=0.35)


def test_the_clearly_worse_gains_least_and_the_unknown_rival_most():
    gains = outlook(3, 0).of_visits()
    assert gains[4] == max(gains[[1, 2, 4, 5, 6]])
    assert gains[0] < 1e-4 * gains[4]


def test_a_pair_gains_less_per_second_the_better_the_two_are_known():
    once, often = outlook(3, 4), outlook(3, 4, 3, 4, 3, 4, 3, 4)
    assert often.uncertain[4] < once.uncertain[4]
    assert often.of_pairs_per_s()[4] < once.of_pairs_per_s()[4]


def test_another_step_gains_less_after_many():
    once, often = (outlook(3, 4, steps=count, are_alike=True).of_staying() for count in (1, 5))
    assert once > 0 and often < once / 2


def test_what_may_not_be_visited_is_in_no_pair():
    now = outlook(3, 4)
    closed = Outlook(now.belief, 3, now.may_win, np.zeros(len(CANDIDATES), bool), now.cost_s, now.now_s)
    assert (closed.of_pairs_per_s() == 0).all()
