"""Weighted hypotheses about what cannot be described by a normal distribution, each with a normal posterior."""

from dataclasses import dataclass, replace

import numpy as np

from autotune.search.belief.prior import Array, Ints

MOST = 64  # hypotheses that are kept
NEGLIGIBLE = 12.0  # below the likeliest, in log weight


@dataclass(frozen=True)
class Hypotheses:
    """P hypotheses after K visits.

    ``at`` [P]: the row of the grid of hyperparameters. Of each visit, [P, K]: ``slowed``, 1 where something disturbed
    it; ``missed``, 1 where the model misses something of its candidate; ``jumps``, how often its machine's speed has
    changed for good by then; ``residual``, the logarithm of its step less the prior mean. ``precision`` [P, K, K] is
    the inverse of the residuals' covariance.
    """

    at: Ints
    slowed: Array
    missed: Array
    jumps: Array
    residual: Array
    precision: Array
    log_weight: Array

    @classmethod
    def before_anything(cls, log_weight: Array) -> "Hypotheses":
        """Return one hypothesis for each row of the grid, with no visit yet."""
        count = len(log_weight)
        nothing = np.zeros((count, 0))
        return cls(np.arange(count), nothing, nothing, nothing, nothing, np.zeros((count, 0, 0)), log_weight)

    def __len__(self) -> int:
        return len(self.at)

    def take(self, keep: Ints) -> "Hypotheses":
        """Return the hypotheses ``keep`` alone."""
        return Hypotheses(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def likeliest(self, most: int = MOST) -> "Hypotheses":
        """Return the likeliest of them, those that can be neglected left out."""
        order = np.argsort(-self.log_weight)[:most]
        return self.take(order[self.log_weight[order] > self.log_weight[order[0]] - NEGLIGIBLE])

    @property
    def weight(self) -> Array:
        """Probability of each, [P]."""
        weight = np.exp(self.log_weight - self.log_weight.max())
        return np.asarray(weight / weight.sum())

    @property
    def alpha(self) -> Array:
        """``precision @ residual``, [P, K]: what posterior means are made from."""
        return np.asarray(np.matmul(self.precision, self.residual[:, :, None])[:, :, 0])

    def log_evidence(self) -> Array:
        """Return the log density of the residuals under each hypothesis but for a constant, [P]."""
        misfit = np.einsum("pk,pk->p", self.residual, self.alpha)
        return np.asarray(np.linalg.slogdet(self.precision)[1] / 2 - misfit / 2)

    def with_covariance(self, covariance: Array) -> "Hypotheses":
        """Return the same hypotheses weighed anew, where the residuals' covariance is another one, [P, K, K]."""
        fresh = replace(self, precision=np.asarray(np.linalg.inv(covariance), float))
        return replace(fresh, log_weight=self.log_weight - self.log_evidence() + fresh.log_evidence())


@dataclass(frozen=True)
class Split:
    """Hypotheses about one more visit, each of which continues the one in row ``parent`` [P]: whether the visit was
    ``slowed``, its candidate ``missed`` by the model, how many ``jumps`` there were by then, and the logarithm of their
    probability given the parent."""

    parent: Ints
    slowed: Array
    missed: Array
    jumps: Array
    log_chance: Array


def grown(before: Hypotheses, split: Split, covariance: Array, variance: Array, residual: Array) -> Hypotheses:
    """Return ``before`` continued by one visit with this ``residual`` [P], its ``variance`` [P] and its ``covariance``
    [P, K] with the visits before; the likeliest of them.

    The inverse of a covariance with one more row follows from that without it, by blocks::

        residual given those before:  miss ~ N(0, s),  s = variance - covariance · gain,  gain = precision · covariance
    """
    parent = before.take(split.parent)
    gain = np.matmul(parent.precision, covariance[:, :, None])[:, :, 0]
    miss = residual - (gain * parent.residual).sum(1)
    rest = variance - (gain * covariance).sum(1)
    log_weight = parent.log_weight + split.log_chance - (miss**2 / rest + np.log(rest)) / 2
    order = np.argsort(-log_weight)[:MOST]
    keep = order[log_weight[order] > log_weight[order[0]] - NEGLIGIBLE]
    gain, rest, count = gain[keep], rest[keep], gain.shape[1]
    precision = np.empty((len(keep), count + 1, count + 1))
    precision[:, :count, :count] = parent.precision[keep] + gain[:, :, None] * (gain / rest[:, None])[:, None, :]
    precision[:, :count, count] = precision[:, count, :count] = -gain / rest[:, None]
    precision[:, count, count] = 1 / rest

    def appended(old: Array, new: Array) -> Array:
        return np.concatenate([old[keep], new[keep, None]], axis=1)

    return Hypotheses(
        at=parent.at[keep],
        slowed=appended(parent.slowed, split.slowed),
        missed=appended(parent.missed, split.missed),
        jumps=appended(parent.jumps, split.jumps),
        residual=appended(parent.residual, residual),
        precision=precision,
        log_weight=log_weight[keep],
    )
