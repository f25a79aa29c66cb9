"""Expected gains where memory is the objective, against a case that can be reckoned by hand."""

from statistics import NormalDist

import numpy as np
import pytest

from autotune.search.belief.belief import Draws
from autotune.search.goal import Goal
from autotune.search.lean import PENALTY, expected_best, gains_per_s, utility
from tests.search.machine import CANDIDATES

LEAN = Goal("memory", 0.05)


def draws(*columns):
    return Draws(np.arange(len(columns)), np.stack(columns, axis=1))


def test_utility_is_memory_saved_less_a_penalty_for_being_too_slow():
    rate = draws(np.zeros(1), np.full(1, np.log(0.96)), np.full(1, np.log(0.90)))
    peaks = dict(zip(CANDIDATES, (100, 50, 25), strict=False))
    found = utility(rate, CANDIDATES, peaks, LEAN)[0]
    assert found == pytest.approx([0.0, 0.5, 0.75 - PENALTY * np.log(0.95 / 0.90)])


def test_what_is_seen_exactly_makes_the_best_of_each_draw():
    rate = np.random.default_rng(0).standard_normal(4000)
    options = np.stack([rate, np.zeros(4000)], axis=1)
    found = expected_best(rate, options, 1e-5, np.arange(0, 4000, 4), np.zeros(1000))
    assert found == pytest.approx(np.maximum(rate, 0).mean(), abs=0.03)


def test_what_is_seen_through_noise_gains_as_much_as_it_tells():
    """E max(0, E(x | x + e)) of normals with equal variance: sd / sqrt(2) / sqrt(2 pi)."""
    random = np.random.default_rng(1)
    rate = random.standard_normal(3000)
    options = np.stack([rate, np.zeros(3000)], axis=1)
    found = expected_best(rate, options, 1.0, np.arange(1000), random.standard_normal(1000))
    assert found == pytest.approx(NormalDist().pdf(0) / 2**0.5, abs=0.05)


def test_who_cannot_be_fast_enough_or_leaner_gains_nothing():
    random = np.random.default_rng(2)
    column = 0.02 * random.standard_normal(512)
    rate = draws(np.zeros(512), column - 0.5, column, column - 0.05)
    peaks = dict(zip(CANDIDATES, (100, 10, 200, 50), strict=False))
    value = utility(rate, CANDIDATES, peaks, LEAN)
    ran = np.array([True, False, False, False])
    gains = gains_per_s(rate, value, ran, ~ran, np.ones(4), 1e-5)
    assert gains[1] == gains[2] == 0
    assert gains[3] > 0.1


def test_a_visit_that_can_tell_nothing_gains_nothing():
    """The level of all candidates is unknown; which of two is the better pick hangs on a third that is never timed."""
    random = np.random.default_rng(3)
    level, fastest = 0.03 * random.standard_normal(512), 0.03 * random.standard_normal(512)
    still = 1e-4 * random.standard_normal((2, 512))
    rate = draws(level - 0.05 + still[0], level - 0.02 + still[1], level + fastest)
    peaks = dict(zip(CANDIDATES, (50, 87, 200), strict=False))
    value = utility(rate, CANDIDATES, peaks, LEAN)
    ran = np.array([True, True, False])
    gains = gains_per_s(rate, value, ran, ran, np.ones(3), 0.01**2)
    assert gains.max() < 1e-3
