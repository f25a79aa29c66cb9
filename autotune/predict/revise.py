"""What confirmed candidates teach about the others: the model's common errors, learned from measured against predicted.

Every prediction may be wrong in three ways, each a relative standard deviation (``Uncertainty``)::

    measured / predicted - 1  =  common · z1  +  overhead · z2  +  own · e

z1 is one number for all candidates (the machine runs slower than while it was profiled), z2 another (the runtime costs
more per action than measured, which weighs where there are many small actions), e a new one for each candidate. All
are standard normal before anything was measured; after that z1 and z2 follow Bayes' rule for a linear model, which is
two equations (Bishop, Pattern Recognition and Machine Learning, section 3.3). Where measurements lie further from the
model than their deviations allow, all deviations are scaled up until they do (Birge's ratio), so that a model that
misleads is trusted less and less.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from autotune.predict.record import Prediction, Revision, Uncertainty

QUANTILE = 1.645  # a normal variable lies within +-1.645 sigma in 90 of 100 cases


def interval(step_time_s: float, sigma: float) -> tuple[float, float]:
    """The 90 % interval of a step time with relative standard deviation ``sigma``; never below half of it."""
    return step_time_s * max(0.5, 1 - QUANTILE * sigma), step_time_s * (1 + QUANTILE * sigma)


def total_sigma(uncertainty: Uncertainty) -> float:
    """Relative standard deviation of a prediction before anything was measured."""
    return float(np.hypot(np.hypot(uncertainty.common, uncertainty.overhead), uncertainty.own))


def revise(predictions: Sequence[Prediction], measured: Mapping[int, float]) -> list[Revision]:
    """Every candidate's step time again, after the steps ``measured`` (index of the candidate -> seconds)."""
    parts = [prediction.uncertainty for prediction in predictions]
    shares = np.array([(part.common, part.overhead) for part in parts])
    own = np.array([part.own for part in parts])
    precision, pull = np.eye(2), np.zeros(2)
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
