"""What is worth a trial, and how sure the pick is."""

import numpy as np
import pytest

from autotune.predict.revise import QUANTILE
from autotune.search.prospects import Goal, Outlook, Standing, confidence, expected_loss


def outlook(measured, unmeasured, goal=None):
    """Rows of (rate, sigma, peak); the open candidates follow the measured ones."""
    rows = [Standing(index, *row) for index, row in enumerate([*measured, *unmeasured])]
    return Outlook(
        candidates=[],
        goal=goal or Goal(),
        measured={one.index: one for one in rows[: len(measured)]},
        open={one.index: one for one in rows[len(measured) :]},
    )


def test_before_the_first_trial_the_best_prediction_is_the_most_promising():
    assert outlook([], [(1.0, 0.5, 1), (1.1, 0.01, 1)]).most_promising() == 1


def test_of_equal_predictions_the_less_sure_one_promises_more():
    now = outlook([(1.0, 0.001, 1)], [(0.97, 0.01, 1), (0.97, 0.05, 1)])
    assert now.most_promising() == 2


def test_the_expected_improvement_is_that_of_drawn_rates():
    now = outlook([(1.0, 0.001, 1)], [(0.98, 0.04, 1)])
    draws = 0.98 * (1 + 0.04 * np.random.default_rng(0).standard_normal(1_000_000))
    assert now.gain(1) == pytest.approx(float(np.maximum(0.0, draws - 1.0).mean()), rel=0.01)


def test_a_candidate_is_open_while_its_interval_reaches_beyond_the_best_by_the_tolerance():
    sigma = 0.02
    edge = 1.01 * (1 - QUANTILE * sigma)
    assert outlook([(1.0, 0.001, 1)], [(edge * 1.001, sigma, 1)]).is_open
    assert not outlook([(1.0, 0.001, 1)], [(edge * 0.999, sigma, 1)]).is_open


def test_with_memory_as_the_objective_a_leaner_candidate_that_may_be_fast_enough_is_open():
    lean = Goal("memory", 0.05)
    measured = [(1.0, 0.001, 100)]
    assert outlook(measured, [(0.94, 0.01, 50)], lean).is_open
    assert not outlook(measured, [(0.94, 0.01, 200)], lean).is_open
    assert not outlook(measured, [(0.90, 0.01, 50)], lean).is_open
    assert outlook(measured, [(0.97, 0.01, 90), (0.97, 0.01, 10)], lean).most_promising() == 2


def test_the_confidence_is_the_chance_to_be_within_the_tolerance():
    alone = {0: Standing(0, 1.0, 0.01, 1)}
    assert confidence(0, alone, 0.01) == 1.0
    apart = alone | {1: Standing(1, 0.5, 0.01, 1)}
    assert confidence(0, apart, 0.01) == 1.0
    assert confidence(1, apart, 0.01) == 0.0
    twins = alone | {1: Standing(1, 1.0, 0.01, 1)}
    # The higher of two equal ones is expected to lie 0.01·sqrt 2 / sqrt(2 pi) above a pick of either.
    assert expected_loss(0, twins) == pytest.approx(0.01 * np.sqrt(2) / np.sqrt(2 * np.pi), rel=0.05)
    assert expected_loss(0, alone) == 0.0
    # Two equal candidates differ by a normal of sigma 0.01·sqrt 2: below ln(1/0.99) with probability 0.76.
    assert confidence(0, twins, 0.01) == pytest.approx(0.76, abs=0.02)
