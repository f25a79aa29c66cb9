"""Intervals of a predicted step: what its parts of uncertainty come to."""

from math import hypot

from autotune.records.prediction import Uncertainty

QUANTILE = 1.645  # a normal variable lies within +-1.645 sigma in 90 of 100 cases


def interval(step_time_s: float, sigma: float) -> tuple[float, float]:
    """Return the 90 % interval of a step time with relative standard deviation ``sigma``; never below half of it."""
    return step_time_s * max(0.5, 1 - QUANTILE * sigma), step_time_s * (1 + QUANTILE * sigma)


def total_sigma(uncertainty: Uncertainty) -> float:
    """Return the relative standard deviation of a measurement around the prediction, before anything was measured."""
    model = hypot(uncertainty.common, uncertainty.overhead, uncertainty.placement, uncertainty.own)
    return hypot(model, uncertainty.moment)
