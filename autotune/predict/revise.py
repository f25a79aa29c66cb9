"""What confirmed candidates teach: the model's common errors, learned from measured against predicted.

Every prediction may be wrong in four ways, each a relative standard deviation (``Uncertainty``), and measurements are
noisy::

    step / predicted - 1  =  common · z1  +  overhead · z2  +  placement · z3[g]  +  own · e
    measured              =  step · (1 + noise)

z1 is one number for all candidates (the machine runs slower than while it was profiled), z2 another (the runtime costs
more per action than measured, which weighs where there are many small actions), z3 one for each group of candidates
whose stages lie alike on the ranks, e a new one for each candidate. All are standard normal before anything was
measured; after that they follow Bayes' rule for a linear model, which is a few equations (Bishop, Pattern Recognition
and Machine Learning, section 3.3). So a candidate that ran is known by its measurement where that is exact, and by the
model, with what others taught, where the machine is so noisy that a few steps say less than the model.

Where measurements lie further from the model than the deviations allow, those of the model are scaled up until they do
not (Birge's ratio), so that a model that misleads is trusted less and less.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np
from numpy.typing import NDArray

from autotune.predict.record import Prediction, Revision, Uncertainty

QUANTILE = 1.645  # a normal variable lies within +-1.645 sigma in 90 of 100 cases


@dataclass(frozen=True)
class Estimate:
    """Seconds of a candidate's step, and the relative standard deviation of that figure."""

    step_time_s: float
    sigma: float


def interval(step_time_s: float, sigma: float) -> tuple[float, float]:
    """The 90 % interval of a step time with relative standard deviation ``sigma``; never below half of it."""
    return step_time_s * max(0.5, 1 - QUANTILE * sigma), step_time_s * (1 + QUANTILE * sigma)


def total_sigma(uncertainty: Uncertainty) -> float:
    """Relative standard deviation of a measurement around the prediction, before anything was measured."""
    model = hypot(uncertainty.common, uncertainty.overhead, uncertainty.placement, uncertainty.own)
    return hypot(model, uncertainty.moment)


def revise(
    predictions: Sequence[Prediction], measured: Mapping[int, Estimate], groups: Sequence[Hashable] | None = None
) -> list[Revision]:
    """Every candidate's step time again, after the steps ``measured`` (by index of the candidate).

    ``groups``: of each candidate, the placement; None: all of one.
    """
    parts = [prediction.uncertainty for prediction in predictions]
    shares = _shares(parts, groups or [None] * len(parts))
    own = np.array([part.own**2 for part in parts])  # variances, all relative to the first prediction
    at = list(measured)
    seen = np.array([measured[index].step_time_s / predictions[index].step_time_s for index in at])
    noise = seen**2 * np.array([measured[index].sigma ** 2 for index in at])

    weights = 1.0 / (own[at] + noise)
    covariance = np.linalg.inv(np.eye(shares.shape[1]) + (shares[at].T * weights) @ shares[at])
    mean = covariance @ (shares[at].T @ (weights * (seen - 1)))
    scales = 1 + shares @ mean
    misses = (seen - scales[at]) ** 2 * weights
    surprise = max(1.0, float(misses.sum() + mean @ mean) / max(1, len(at)))
    own, covariance = surprise * own, surprise * covariance

    trust = np.zeros(len(parts))  # in the candidate's own measurement, beside the model
    trust[at] = own[at] / (own[at] + noise)
    scales[at] += trust[at] * (seen - scales[at])
    scales = np.maximum(0.1, scales)
    left = (1 - trust[:, None]) * shares  # of the common errors, in what is known of each candidate
    beside = left - (left[at].mean(axis=0) if at else 0.0)  # what is common to all makes no difference between them
    rest = (1 - trust) * own
    sigmas, differences = (
        np.sqrt(np.einsum("ni,ij,nj->n", part, covariance, part) + rest) / scales for part in (left, beside)
    )
    figures = zip(scales.tolist(), sigmas.tolist(), differences.tolist(), strict=True)
    return [_revision(prediction, *three) for prediction, three in zip(predictions, figures, strict=True)]


def _shares(parts: Sequence[Uncertainty], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """float64[candidates, 2 + placements]: how much of each common error is in each candidate's prediction."""
    known = list(dict.fromkeys(groups))
    shares = np.zeros((len(parts), 2 + len(known)))
    for row, (part, name) in enumerate(zip(parts, groups, strict=True)):
        shares[row, :2] = part.common, part.overhead
        shares[row, 2 + known.index(name)] = part.placement
    return shares


def _revision(prediction: Prediction, scale: float, sigma: float, difference: float) -> Revision:
    """``sigma``: of the step, relative to itself; ``difference``: beside other steps."""
    step = prediction.step_time_s * scale
    low, high = interval(step, hypot(sigma, prediction.uncertainty.moment))
    return Revision(
        step_time_s=step,
        step_time_low_s=low,
        step_time_high_s=high,
        throughput_seq_s=prediction.throughput_seq_s / scale,
        sigma=difference,
    )
