"""What confirmed candidates teach about the others: the model's common errors, learned from measured against predicted.

Every prediction may be wrong in four ways, each a relative standard deviation (``Uncertainty``)::

    measured / predicted - 1  =  common · z1  +  overhead · z2  +  placement · z3[g]  +  own · e

z1 is one number for all candidates (the machine runs slower than while it was profiled), z2 another (the runtime costs
more per action than measured, which weighs where there are many small actions), z3 one for each group of candidates
whose stages lie alike on the ranks, e a new one for each candidate. All are standard normal before anything was
measured; after that the shared ones follow Bayes' rule for a linear model, which is a few equations (Bishop, Pattern
Recognition and Machine Learning, section 3.3). Where measurements lie further from the
model than their deviations allow, all deviations are scaled up until they do (Birge's ratio), so that a model that
misleads is trusted less and less.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import hypot

import numpy as np

from autotune.predict.record import Prediction, Revision, Uncertainty

QUANTILE = 1.645  # a normal variable lies within +-1.645 sigma in 90 of 100 cases


def interval(step_time_s: float, sigma: float) -> tuple[float, float]:
    """The 90 % interval of a step time with relative standard deviation ``sigma``; never below half of it."""
    return step_time_s * max(0.5, 1 - QUANTILE * sigma), step_time_s * (1 + QUANTILE * sigma)


def total_sigma(uncertainty: Uncertainty) -> float:
    """Relative standard deviation of a prediction before anything was measured."""
    return hypot(uncertainty.common, uncertainty.overhead, uncertainty.placement, uncertainty.own)


def revise(
    predictions: Sequence[Prediction], measured: Mapping[int, float], groups: Sequence[Hashable] | None = None
) -> list[Revision]:
    """Every candidate's step time again, after the steps ``measured`` (index of the candidate -> seconds).

    ``groups``: of each candidate, the placement; None: all of one.
    """
    parts = [prediction.uncertainty for prediction in predictions]
    names = groups or [None] * len(parts)
    known = list(dict.fromkeys(names))
    shares = np.zeros((len(parts), 2 + len(known)))
    for row, (part, name) in enumerate(zip(parts, names, strict=True)):
        shares[row, :2] = part.common, part.overhead
        shares[row, 2 + known.index(name)] = part.placement
    own = np.array([part.own for part in parts])
    precision, pull = np.eye(shares.shape[1]), np.zeros(shares.shape[1])
    for index, seconds in measured.items():
        weight = 1.0 / own[index] ** 2
        precision += weight * np.outer(shares[index], shares[index])
        pull += weight * shares[index] * (seconds / predictions[index].step_time_s - 1)
    covariance = np.linalg.inv(precision)
    mean = covariance @ pull
    scales = 1 + shares @ mean
    sigmas = np.sqrt(np.einsum("ni,ij,nj->n", shares, covariance, shares) + own**2)
    misses = [
        (seconds / predictions[index].step_time_s - scales[index]) / own[index] for index, seconds in measured.items()
    ]
    surprise = (np.square(misses).sum() + mean @ mean) / max(1, len(misses))
    sigmas *= np.sqrt(max(1.0, surprise))
    return [
        _revision(prediction, max(0.1, float(scale)), float(sigma))
        for prediction, scale, sigma in zip(predictions, scales, sigmas, strict=True)
    ]


def _revision(prediction: Prediction, scale: float, sigma: float) -> Revision:
    step = prediction.step_time_s * scale
    low, high = interval(step, sigma / scale)  # sigma is of the first prediction
    return Revision(
        step_time_s=step,
        step_time_low_s=low,
        step_time_high_s=high,
        throughput_seq_s=prediction.throughput_seq_s / scale,
    )
