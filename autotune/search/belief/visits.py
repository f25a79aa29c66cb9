"""The visits that a belief has seen, as arrays, and what any two of them have in common under each hypothesis."""

from dataclasses import dataclass, field

import numpy as np

from autotune.search.belief.hypotheses import Hypotheses
from autotune.search.belief.prior import (
    JUMP_SD,
    MACHINE_SD,
    MISSED_SD,
    OUR_SD,
    SLOWDOWN_COMMON_SD,
    SLOWDOWN_LASTS,
    SLOWDOWN_OWN_SD,
    STEP_NOISE,
    STEP_NOISE_WEIGHT,
    Array,
    Grid,
    Ints,
    Prior,
)


@dataclass
class Visits:
    """K visits in the order in which they were seen.

    The ``row`` of the candidate, the middle ``at_s`` of the steps, the ``machine`` and its ``session`` as numbers, and
    the logarithms of the ``steps``. Machine 0 is our own.
    """

    row: Ints = field(default_factory=lambda: np.zeros(0, int))
    at_s: Array = field(default_factory=lambda: np.zeros(0))
    machine: Ints = field(default_factory=lambda: np.zeros(0, int))
    session: Ints = field(default_factory=lambda: np.zeros(0, int))
    steps: list[list[float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.row)

    def begin(self, row: int, machine: int, session: int) -> None:
        """Add a visit of which no step was timed yet."""
        self.row, self.at_s = np.append(self.row, row), np.append(self.at_s, 0.0)
        self.machine, self.session = np.append(self.machine, machine), np.append(self.session, session)
        self.steps.append([])

    def drop(self) -> None:
        """Remove the last visit."""
        self.row, self.at_s = self.row[:-1], self.at_s[:-1]
        self.machine, self.session = self.machine[:-1], self.session[:-1]
        self.steps.pop()

    def before(self, last: int) -> int | None:
        """Return the visit before ``last`` on the same machine."""
        same = np.flatnonzero(self.machine[:last] == self.machine[last])
        return int(same[-1]) if len(same) else None

    def step_noise(self) -> float:
        """Return the relative standard deviation of a step, pooled over all visits, with a prior: two steps that happen
        to agree are not free of noise."""
        timed = [np.array(steps) for steps in self.steps if len(steps) > 1]
        freedom = STEP_NOISE_WEIGHT + sum(len(steps) - 1 for steps in timed)
        squares = sum(float(((steps - np.median(steps)) ** 2).sum()) for steps in timed)
        return float(((STEP_NOISE_WEIGHT * STEP_NOISE**2 + squares) / freedom) ** 0.5)


@dataclass(frozen=True)
class Kernel:
    """Covariances of visits with each other under each hypothesis::

    scale² · errors of the two candidates  +  missed (same candidate)
    + on the same machine:  drift² exp(-apart / drift_s)  +  jumps that both came after  +  the machine's offset
    + where both were slowed:  common² exp(-apart / long)  +  own² (same candidate)
    """

    prior: Prior
    grid: Grid
    visits: Visits
    noise: float

    def moment(self, h: Hypotheses, jumps: Array, at_s: float, machine: int) -> Array:
        """Return the covariance of the machine's speed at a moment with that at each visit of ``h``, [P, K]; ``jumps``
        [P] by then, no fewer than before."""
        count = h.residual.shape[1]
        apart = np.abs(at_s - self.visits.at_s[:count])
        found = self.grid.drift_sd[h.at, None] ** 2 * np.exp(-apart / self.grid.drift_s[h.at, None])
        found += JUMP_SD**2 * np.minimum(h.jumps, jumps[:, None]) + self._offset(machine)
        return np.asarray(found * (self.visits.machine[:count] == machine))

    def own_moment(self, h: Hypotheses, jumps: Array, machine: int) -> Array:
        """Return the variance of the machine's speed at a moment, [P]."""
        return np.asarray(self.grid.drift_sd[h.at] ** 2 + JUMP_SD**2 * jumps + self._offset(machine))

    def slowdown(self, h: Hypotheses, k: int, slowed: Array) -> Array:
        """Return the covariance of the slowdown of visit ``k`` with that of each visit of ``h``, [P, K]."""
        v, count = self.visits, h.residual.shape[1]
        apart = np.abs(v.at_s[k] - v.at_s[:count])
        shared = SLOWDOWN_COMMON_SD**2 * np.exp(-apart / (SLOWDOWN_LASTS * self.prior.visit_s))
        shared += SLOWDOWN_OWN_SD**2 * (v.row[:count] == v.row[k])
        return np.asarray(slowed[:, None] * h.slowed * (shared * (v.machine[:count] == v.machine[k])))

    def visit(self, h: Hypotheses, k: int, slowed: Array, missed: Array, jumps: Array) -> tuple[Array, Array]:
        """Return the covariance of visit ``k`` with each visit of ``h``, [P, K], and its own variance, [P]; ``slowed``,
        ``missed`` and ``jumps`` [P] are those of visit ``k``."""
        v, count = self.visits, h.residual.shape[1]
        row, machine, scale2 = int(v.row[k]), int(v.machine[k]), self.grid.scale[h.at] ** 2
        same = (v.row[:count] == row).astype(float)
        between = scale2[:, None] * self.prior.covariance[row, v.row[:count]] + MISSED_SD**2 * h.missed * same
        between += self.moment(h, jumps, float(v.at_s[k]), machine) + self.slowdown(h, k, slowed)
        own = scale2 * self.prior.covariance[row, row] + MISSED_SD**2 * missed + self.own_moment(h, jumps, machine)
        own += slowed * (SLOWDOWN_COMMON_SD**2 + SLOWDOWN_OWN_SD**2)
        own += self.grid.visit_sd[h.at] ** 2 + self.noise**2 / len(v.steps[k])
        return between, own

    def all_visits(self, h: Hypotheses) -> Array:
        """Return the covariance of all visits of ``h`` with each other, [P, K, K]."""
        count = h.residual.shape[1]
        full = np.zeros((len(h), count, count))
        for k in range(count):
            between, own = self.visit(h, k, h.slowed[:, k], h.missed[:, k], h.jumps[:, k])
            full[:, k, :] = between
            full[:, k, k] = own
        return full

    def all_moments(self, h: Hypotheses) -> Array:
        """Return the covariance of the machine's speed at each visit with that at each other, [P, K, K]."""
        count = h.residual.shape[1]
        at_s, machine = self.visits.at_s[:count], self.visits.machine[:count]
        apart = np.abs(at_s[:, None] - at_s)
        found = self.grid.drift_sd[h.at, None, None] ** 2 * np.exp(-apart / self.grid.drift_s[h.at, None, None])
        found += JUMP_SD**2 * np.minimum(h.jumps[:, :, None], h.jumps[:, None, :])
        found += np.where(machine, MACHINE_SD**2, OUR_SD**2)
        return np.asarray(found * (machine[:, None] == machine))

    def _offset(self, machine: int) -> float:
        return float(MACHINE_SD**2 if machine else OUR_SD**2)
