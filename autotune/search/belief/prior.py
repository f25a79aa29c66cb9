"""The prior: what is believed of candidates, of the machine and of its disturbances before anything was timed.

A prediction may be wrong in four ways (``records.prediction.Uncertainty``), each a relative standard deviation::

    log step  =  log predicted  +  scale · (common · z1  +  overhead · z2  +  placement · z3[g]  +  own · e)

z1 is one number for all candidates (the machine runs slower than while it was profiled), z2 another (the runtime costs
more per action than measured, which weighs where there are many small actions), z3 one for each group of candidates
whose stages lie alike on the ranks, e one for each candidate; all standard normal. ``scale`` is how many times as wrong
as it says the model is. It is not known, nor is how far visits differ and how fast the machine drifts: each is one of a
few values (``Grid``), weighed by what is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autotune.records.prediction import Candidate, Prediction

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

STEP_NOISE, STEP_NOISE_WEIGHT = 0.007, 4  # relative noise of a step before any was seen, and its weight in steps
VISIT_SD = (0.003, 0.01, 0.03, 0.08)  # relative; of one visit beside another, beyond drift
DRIFT = ((0.0, 1.0), (0.02, 5.0), (0.02, 25.0), (0.08, 5.0), (0.08, 25.0))  # relative sd; correlation time in visits
SCALE = ((1.0, 0.64), (2.0, 0.28), (4.0, 0.07), (8.0, 0.008), (16.0, 0.002))  # of the model's errors; probability
QUIET = 0.005  # taken as the difference between moments of a machine where the profile does not tell it
SLOWED, STAYS_SLOWED = (
    0.04,
    0.6,
)  # probability that a visit is disturbed, after one that was not, and after one that was
SLOWED_FIRST = 0.08  # that the first one is
SLOWDOWN, SLOWDOWN_COMMON_SD, SLOWDOWN_OWN_SD = 0.30, 0.15, 0.08  # log; the mean, what all share, each candidate's own
SLOWDOWN_LASTS = 20.0  # visits; correlation time of the slowdown that all share
JUMP, JUMP_SD = 0.02, 0.25  # probability that the machine's speed changed for good since the last visit; by how much
JUMP_BETWEEN_SESSIONS = 0.3  # the same where an earlier run ended in between
JUMP_SINCE_PROFILE = 0.02  # the same between profiling and the first visit
MISSED, MOST_MISSED = 0.5, 0.02  # candidates of all that the model misses something of; probability of each, at most
MISSED_SD = 0.15  # log; how much it misses
OUR_SD, MACHINE_SD = 0.05, 0.5  # log; between our machine, or another controller's, and what was predicted
READY_S = 1.0  # seconds that making a visit ready is taken to cost before any was made


@dataclass(frozen=True)
class Prior:
    """``log_step``: log seconds of each candidate's step, [n]; ``covariance`` of their errors at scale 1, [n, n];
    ``moment``: relative difference between moments of the machine, as the profile saw it; ``visit_s``: how long a visit
    takes, the unit of time of drift; ``missed``: the probability that the model misses something of a candidate."""

    log_step: Array
    covariance: Array
    moment: float
    visit_s: float
    missed: float = MOST_MISSED


def prior_of(predictions: Mapping[Candidate, Prediction]) -> Prior:
    """Return the prior that follows from ``predictions``, the candidates in their order."""
    parts = [prediction.uncertainty for prediction in predictions.values()]
    groups = list(dict.fromkeys(candidate.placement for candidate in predictions))
    shares = np.zeros((len(parts), 2 + len(groups)))
    for row, (part, candidate) in enumerate(zip(parts, predictions, strict=True)):
        shares[row, :2] = part.common, part.overhead
        shares[row, 2 + groups.index(candidate.placement)] = part.placement
    own = np.array([part.own for part in parts])
    steps = np.array([prediction.step_time_s for prediction in predictions.values()])
    fastest = steps[np.argmax([one.throughput_seq_s for one in predictions.values()])]
    return Prior(
        log_step=np.log(steps),
        covariance=shares @ shares.T + np.diag(own**2),
        moment=max(part.moment for part in parts),
        visit_s=float(3 * fastest) + READY_S,
        missed=min(MOST_MISSED, MISSED / len(parts)),
    )


@dataclass(frozen=True)
class Grid:
    """Every combination of hyperparameters, [g] each: standard deviation of visits and of drift, drift's correlation
    time in seconds, scale of the model's errors, and the logarithm of the prior weight."""

    visit_sd: Array
    drift_sd: Array
    drift_s: Array
    scale: Array
    log_weight: Array


def grid_of(prior: Prior) -> Grid:
    """Return the grid; combinations whose visits differ as much as the profile's moments did are likelier."""
    rows = []
    expected = max(prior.moment, QUIET)
    for visit_sd, (drift_sd, visits), (scale, weight) in product(VISIT_SD, DRIFT, SCALE):
        off = np.log(np.hypot(visit_sd, drift_sd) / expected)
        rows.append((visit_sd, drift_sd, visits * prior.visit_s, scale, np.log(weight) - off**2 / 2))
    return Grid(*(np.array(column) for column in zip(*rows, strict=True)))
