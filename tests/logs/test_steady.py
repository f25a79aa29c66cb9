"""Where steps become steady."""

import numpy as np
import pytest

from autotune.logs.steady import steady


def noisy(middle, count, seed=0):
    return list(middle * np.exp(0.01 * np.random.default_rng(seed).standard_normal(count)))


@pytest.mark.parametrize(
    ("first", "left_out"),
    [
        ([], 1),  # the first is always left out
        ([9.0], 1),
        ([9.0, 4.0, 2.0], 3),  # compilation, then caches
        ([1.5, 1.4, 1.3, 1.2, 1.1], 5),
    ],
)
def test_what_comes_before_is_left_out(first, left_out):
    found = steady(first + noisy(1.0, 20))
    assert left_out <= found.left_out <= left_out + 2
    assert found.step_time_s == pytest.approx(1.0, rel=0.01)
    assert 0.0005 < found.standard_error < 0.006


def test_a_slow_step_in_the_middle_does_not_cut_the_rest_away():
    steps = [3.0, *noisy(1.0, 10), 8.0, *noisy(1.0, 9, seed=1)]
    assert steady(steps).left_out <= 3


@pytest.mark.parametrize("steps", [[2.0], [2.0, 1.0]])
def test_few_steps_are_all_kept(steps):
    assert steady(steps).steps == tuple(steps[-len(steady(steps).steps) :])
    assert steady(steps).left_out <= 1


def test_steps_that_are_all_alike():
    assert steady([1.0] * 6) == ((1.0,) * 5, 1)
    assert steady([1.0] * 6).standard_error == 0.0
