"""The noise of steps, from repeated times."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from statistics import median

PRIOR_NOISE, PRIOR_WEIGHT = 0.007, 4  # relative noise of a step before any was seen, worth so many steps


@dataclass(frozen=True)
class Noise:
    """Relative standard deviation of a step, and the degrees of freedom behind it."""

    sigma: float
    freedom: float


def step_noise(series: Iterable[Sequence[float]]) -> Noise:
    """Return the noise of a step, pooled over all series: every candidate runs on the same machine.

    From the median absolute deviation, so that one step that was disturbed does not make all of them look noisy, and
    with a prior, so that two steps that happen to agree do not look free of noise.
    """
    known = [times for times in series if len(times) > 1]
    freedom = sum(len(times) - 1 for times in known)
    variance = (PRIOR_WEIGHT * PRIOR_NOISE**2 + freedom * deviation(known) ** 2) / (PRIOR_WEIGHT + freedom)
    return Noise(float(variance**0.5), PRIOR_WEIGHT + freedom)


def deviation(groups: Iterable[Sequence[float]]) -> float:
    """Return the relative standard deviation within groups of two times or more, from the median absolute deviation; 0
    of none."""
    deviations: list[float] = []
    for times in groups:
        middle, correction = median(times), (len(times) / (len(times) - 1)) ** 0.5
        own = sorted(abs(log(seconds / middle)) * correction for seconds in times)
        deviations += own[len(times) % 2 :]  # without the middle one itself
    return 1.4826 * median(deviations) if deviations else 0.0
