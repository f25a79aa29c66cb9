"""What the finished trials and the cost model say of the candidates: who could still win, and how sure the pick is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, pi, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autotune.predict.record import Candidate, Revision
from autotune.predict.revise import QUANTILE

TIE = 0.01  # throughputs closer than this are tied
DRAWS = 4096
STANDARD = NormalDist()


@dataclass(frozen=True)
class Goal:
    """``throughput``: the highest, and of those within ``tolerance`` the leanest. ``memory``: the leanest candidate
    whose throughput is within ``tolerance`` of the highest."""

    objective: Literal["throughput", "memory"] = "throughput"
    tolerance: float = TIE

    @property
    def gain(self) -> float:
        """By how much throughput must be beaten for a trial to be worth its steps."""
        return self.tolerance if self.objective == "throughput" else min(TIE, self.tolerance)


@dataclass(frozen=True)
class Standing:
    """Sequences per second with its relative standard deviation, and bytes of the fullest rank (None: not known)."""

    index: int
    rate: float
    sigma: float
    peak: int | None


@dataclass(frozen=True)
class Outlook:
    """What is known when the next trial is chosen. ``open``: standings of the candidates that may be tried, as the
    model predicts them now; ``measured``: of those that ran."""

    candidates: Sequence[Candidate]
    goal: Goal
    open: Mapping[int, Standing]
    measured: Mapping[int, Standing]

    @property
    def best(self) -> float:
        """The highest throughput of those that ran; 0 before the first."""
        return max((standing.rate for standing in self.measured.values()), default=0.0)

    @property
    def leanest(self) -> int | None:
        """The lowest peak memory of what was measured within the tolerance of the best."""
        peaks = [one.peak for one in self.measured.values() if one.rate >= self.best * (1 - self.goal.tolerance)]
        return min((peak for peak in peaks if peak is not None), default=None)

    def could_win(self, index: int) -> bool:
        """Whether the optimistic end of the candidate's interval beats the best by more than is worth a trial; with
        memory as the objective also whether it could be leaner than the leanest and still fast enough."""
        one = self.open[index]
        optimistic = one.rate / max(0.5, 1 - QUANTILE * one.sigma)
        if optimistic > self.best * (1 + self.goal.gain):
            return True
        return self._saving(one) > 0 and optimistic >= self.best * (1 - self.goal.tolerance)

    @property
    def is_open(self) -> bool:
        """Whether any candidate could still win."""
        return any(self.could_win(index) for index in self.open)

    def gain(self, index: int) -> float:
        """Expected improvement over the best, relative to it: E max(0, rate - best) of a normal rate (Jones, Schonlau,
        Welch 1998). With memory as the objective the expected saving is added. Before the first trial: the rate."""
        one, best = self.open[index], self.best
        if not best:
            return one.rate
        spread = one.rate * one.sigma
        z = (one.rate - best) / spread
        gain = spread * (exp(-z * z / 2) / sqrt(2 * pi) + z * STANDARD.cdf(z)) / best
        fast_enough = STANDARD.cdf((one.rate - best * (1 - self.goal.tolerance)) / spread)
        return gain + fast_enough * self._saving(one)

    def _saving(self, one: Standing) -> float:
        """Share of the leanest candidate's memory that this one would save; 0 where memory is not the objective."""
        if self.goal.objective != "memory" or not self.leanest or one.peak is None:
            return 0.0
        return max(0.0, 1 - one.peak / self.leanest)

    def most_promising(self) -> int | None:
        """The open candidate with the highest expected gain."""
        return max(self.open, key=self.gain, default=None)


def standing(index: int, candidate: Candidate, revision: Revision, peak: int | None) -> Standing:
    """Where a candidate stands beside others, by the model and what was measured."""
    return Standing(index, candidate.sequences / revision.step_time_s, revision.sigma, peak)


def confidence(pick: int, standings: Mapping[int, Standing], tolerance: float) -> float:
    """The probability that the throughput of ``pick`` is within ``tolerance`` of the highest of all ``standings``."""
    return float(np.mean(_losses(pick, standings) <= -np.log1p(-tolerance)))


def expected_loss(pick: int, standings: Mapping[int, Standing]) -> float:
    """The share of the highest throughput that ``pick`` is expected to lose: what knowing all exactly would gain."""
    return float(np.mean(1 - np.exp(-_losses(pick, standings))))


def _losses(pick: int, standings: Mapping[int, Standing]) -> NDArray[np.float64]:
    """Logarithms of the highest throughput over the pick's: float64[DRAWS], drawn from independent normal
    distributions of the logarithms, always with the same random numbers."""
    order = [pick, *(index for index in standings if index != pick)]
    centre = np.log([standings[index].rate for index in order])
    spread = np.array([standings[index].sigma for index in order])
    draws = centre + spread * np.random.default_rng(0).standard_normal((DRAWS, len(order)))
    losses: NDArray[np.float64] = draws.max(axis=1) - draws[:, 0]
    return losses
