"""Where a series of steps becomes steady: what comes before is compilation, caches that fill, warm-up.

The marginal standard error rule (White 1997): leave out as many first steps as make the standard error of the mean of
the rest smallest. One step that something disturbed would mislead it, so it looks at the logarithms of steps, each
drawn in to within ``REACH`` deviations of the median of the second half.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

REACH = 4.0
LEAST_DEVIATION = 0.002
"""Relative deviation of steps that none are taken to be steadier than."""
FEW = 3
"""Steps from which on the first is always left out: launchers build and load while it runs."""


class Steady(NamedTuple):
    """The steady steps, seconds, and how many came before them."""

    steps: tuple[float, ...]
    left_out: int

    @property
    def step_time_s(self) -> float:
        """Median of the steady steps, seconds."""
        return median(self.steps)

    @property
    def standard_error(self) -> float:
        """Relative standard error of that median, from the spread of the steps (1.25 sigma / sqrt(n)); 0 of one."""
        logs = np.log(np.array(self.steps))
        sigma = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
        return float(1.25 * sigma / len(self.steps) ** 0.5)


def steady(seconds: Sequence[float]) -> Steady:
    """Return the steady part of a series of steps, of which there is at least one; at most half of them are left
    out, and at least one where there are ``FEW``."""
    count = len(seconds)
    least = 1 if count >= FEW else 0
    logs = np.log(seconds)
    half = logs[count // 2 :]
    middle = float(np.median(half))
    sigma = max(LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(half - middle))))
    drawn_in = np.clip(logs, middle - REACH * sigma, middle + REACH * sigma)
    errors = {out: marginal_error(drawn_in[out:]) for out in range(least, max(least, count // 2) + 1)}
    best = min(errors, key=lambda out: (round(errors[out], 12), out))
    return Steady(tuple(seconds[best:]), best)


def marginal_error(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return the squared standard error of the mean."""
    return float(np.sum((values - values.mean()) ** 2)) / len(values) ** 2
