"""How far repeated times lie apart, and what is in their middle, without much regard for those that were disturbed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, log
from statistics import NormalDist, median

from autotune.predict.revise import Estimate

PRIOR_NOISE, PRIOR_WEIGHT = 0.007, 4  # relative noise of a step before any was seen, worth so many steps
SIGNIFICANT, NOTICEABLE = 2.5, 0.02  # a change of pace: this many sigmas, and at least so much
OUTLYING = 1.5  # sigmas from the other visits to a candidate, from which on a visit counts for less
ITERATIONS, ROUNDING = 20, 1e-9


@dataclass(frozen=True)
class Noise:
    """Relative standard deviation of a step, and the degrees of freedom behind it."""

    sigma: float
    freedom: float

    def bound(self, chance: float) -> float:
        """How many sigmas a difference exceeds with so much chance: Student's t, by Cornish and Fisher's expansion."""
        z, nu = NormalDist().inv_cdf(1 - chance), self.freedom
        return z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)


@dataclass(frozen=True)
class Fit:
    """By how much visits were off, in the logarithm of a step, and the standard deviation expected of that."""

    shift: float
    sigma: float

    @property
    def is_within_noise(self) -> bool:
        """Whether they need no other explanation."""
        return abs(self.shift) < max(NOTICEABLE, SIGNIFICANT * self.sigma)

    @property
    def likelihood(self) -> float:
        """Its logarithm, but for a constant, of a normal distribution."""
        return -((self.shift / self.sigma) ** 2) / 2 - log(self.sigma)


def step_noise(series: Iterable[Sequence[float]]) -> Noise:
    """Noise of a step, pooled over all visits: every candidate runs on the same machine.

    From the median absolute deviation, so that one step that was disturbed does not make all of them look noisy, and
    with a prior, so that two steps that happen to agree do not look free of noise.
    """
    known = [times for times in series if len(times) > 1]
    freedom = sum(len(times) - 1 for times in known)
    variance = (PRIOR_WEIGHT * PRIOR_NOISE**2 + freedom * deviation(known) ** 2) / (PRIOR_WEIGHT + freedom)
    return Noise(float(variance**0.5), PRIOR_WEIGHT + freedom)


def deviation(groups: Iterable[Sequence[float]]) -> float:
    """Relative standard deviation within groups of two times or more, from the median absolute deviation; 0 of none."""
    deviations: list[float] = []
    for times in groups:
        middle, correction = median(times), (len(times) / (len(times) - 1)) ** 0.5
        own = sorted(abs(log(seconds / middle)) * correction for seconds in times)
        deviations += own[len(times) % 2 :]  # without the middle one itself
    return 1.4826 * median(deviations) if deviations else 0.0


def robust_mean(seen: Iterable[tuple[float, float]]) -> Estimate:
    """The middle of logarithms of times, each with its variance; the further one lies beyond OUTLYING of its sigmas
    from the middle, the less it weighs (Huber 1964, by iterated weights).

    Begins at the faster one where two are in the middle: a neighbour makes a visit slower, and nothing makes it faster.
    """
    ranking = sorted(seen)
    weighed = list(accumulate(1 / variance for _, variance in ranking))
    half = weighed[-1] / 2 * (1 - ROUNDING)
    middle = next(one for (one, _), so_far in zip(ranking, weighed, strict=True) if so_far >= half)
    for _ in range(ITERATIONS):
        weights = [1 / (var * max(1.0, abs(one - middle) / (OUTLYING * var**0.5))) for one, var in ranking]
        middle = sum(weight * one for weight, (one, _) in zip(weights, ranking, strict=True)) / sum(weights)
    return Estimate(exp(middle), sum(weights) ** -0.5)
