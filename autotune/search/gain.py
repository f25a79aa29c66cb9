"""The expected gain of one more visit, of a pair side by side, of one more step: in closed form, from the belief.

The knowledge gradient (Frazier, Powell, Dayanik 2009) of each candidate against the leader::

    gain  =  E max(0, how far the candidate will then be expected to be ahead)  -  max(0, how far it is ahead now)

where the second term is that of a candidate that may be picked already. What a visit changes of "how far ahead" is
normal within each hypothesis; and it tells hypotheses apart. The two are kept separate: moment-matched to one normal
distribution, a search stops too early.

In noise one visit tells little and several may be worth their time, so that repetitions are looked at too. They are one
decision each: what turns out to be behind is dropped early. Priced as if all were certain, the search would stop long
before the point at which an optimal one does (a test compares the two).
"""

from dataclasses import dataclass
from functools import cached_property
from math import pi, sqrt

import numpy as np

from autotune.search.belief.belief import Belief
from autotune.search.belief.hypotheses import Hypotheses
from autotune.search.belief.prior import MISSED_SD, SLOWED, SLOWED_FIRST, STAYS_SLOWED, Array, Ints, Mask

TIMES = (1, 2, 4, 8)  # how often a pair, or a round, may be repeated
SEQUENTIAL = 0.5  # of the repetitions that a comparison of fixed length takes, one that may end early takes (Wald 1945)
ROUND, NORMAL = 16, np.random.default_rng(1).standard_normal((256, 16))  # candidates of a round; draws for its gain
WORK = 6e6  # hypotheses x candidates x visits² that a decision may take: as many hypotheses as that allows
FEWEST, MOST = 12, 48


def normal_cdf(z: Array) -> Array:
    """Return the standard normal distribution function, to 1e-7 (Abramowitz and Stegun 26.2.17)."""
    size = np.abs(z)
    t = 1 / (1 + 0.2316419 * size)
    powers = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-size * size / 2) / sqrt(2 * pi) * powers
    return np.asarray(np.where(z > 0, 1 - tail, tail))


def expected_positive_part(mean: Array, sd: Array) -> Array:
    """Return E max(0, X) of normal X."""
    sd = np.maximum(sd, 1e-9)
    z = np.clip(mean / sd, -30, 30)
    return np.asarray(sd * np.exp(-z * z / 2) / sqrt(2 * pi) + mean * normal_cdf(z))


def expected_repetitions(most: int) -> float:
    """Return how often something is expected to be repeated that is repeated ``most`` times at most: after each time
    the search may go on with something else. The first time is certain."""
    return 1 + SEQUENTIAL * (most - 1)


def expected_gain(mean: Array, variance: Array, is_new: Mask) -> Array:
    """Return the expected gain of learning so much, ``variance``, of how far ahead a candidate is, now ``mean``;
    ``is_new``: it cannot be picked before it has run."""
    gain = expected_positive_part(mean, np.sqrt(np.maximum(variance, 0)))
    return np.asarray(gain - np.where(is_new, 0, np.maximum(mean, 0)))


def gain_per_repetition(mean: Array, uncertain: Array, variance: float, is_new: Mask) -> Array:
    """Return the gain for each time of observing with this ``variance`` how far ahead a candidate is, now ``mean`` with
    the variance ``uncertain``: that of the best number of repetitions."""
    best = np.zeros(np.shape(mean))
    for times in TIMES:
        learned = uncertain**2 / np.maximum(uncertain + variance / times, 1e-12)
        best = np.maximum(best, expected_gain(mean, learned, is_new) / expected_repetitions(times))
    return best


@dataclass(frozen=True)
class Outlook:
    """What the belief says of every candidate beside the ``leader`` (a row), at the time ``now_s``.

    ``may_win`` and ``may_visit`` [n]: the candidates that may be picked, and those that may be timed now; ``cost_s``
    [n]: seconds that a visit of one timed step takes.
    """

    belief: Belief
    leader: int
    may_win: Mask
    may_visit: Mask
    cost_s: Array
    now_s: float

    @cached_property
    def h(self) -> Hypotheses:
        """The hypotheses that a decision is made from."""
        size = len(self.belief.candidates) * len(self.belief.visits) ** 2
        return self.belief.now.likeliest(min(MOST, max(FEWEST, int(WORK / size))))

    def mix(self, values: Array) -> Array:
        """Return the mean over hypotheses."""
        return np.asarray(self.h.weight @ values)

    @cached_property
    def means(self) -> Array:
        """Log steps, [P, n]."""
        return self.belief.means(self.h)

    @cached_property
    def gap(self) -> Array:
        """The lead of each candidate over the leader, in log throughput, [P, n]."""
        work, lead = self.belief.log_work, [self.leader]
        return np.asarray(work - work[lead] - self.means + self.means[:, lead])

    @cached_property
    def ahead(self) -> Array:
        """The mean lead of each candidate over the leader, [n]."""
        return self.mix(self.gap)

    @cached_property
    def apart(self) -> Array:
        """By how much hypotheses differ from that, [P, n]."""
        return self.gap - self.ahead

    @cached_property
    def is_seen(self) -> Mask:
        """True for those that ran, [n]."""
        return np.isin(np.arange(len(self.belief.candidates)), self.belief.visits.row)

    @cached_property
    def common(self) -> Array:
        """Covariance of candidates' steps with each visit, [P, n, K]."""
        return self.belief.covariance_with_visits(self.h)

    @cached_property
    def gain_matrix(self) -> Array:
        """``common`` times the precision, [P, n, K]."""
        return np.asarray(np.matmul(self.common, self.h.precision))

    @cached_property
    def own_variance(self) -> Array:
        """Prior variance of each candidate's step, [P, n]."""
        scale2 = self.belief.grid.scale[self.h.at, None] ** 2
        return np.asarray(scale2 * np.diag(self.belief.prior.covariance) + self.belief.missed_variance(self.h))

    @cached_property
    def covariance_with_leader(self) -> Array:
        """Prior covariance of each candidate's step with the leader's, [P, n]."""
        found = self.belief.grid.scale[self.h.at, None] ** 2 * self.belief.prior.covariance[self.leader]
        found = found.copy()
        found[:, self.leader] = self.own_variance[:, self.leader]
        return np.asarray(found)

    @cached_property
    def last_here(self) -> int | None:
        """The last visit on our own machine."""
        mine = np.flatnonzero(self.belief.visits.machine == 0)
        return int(mine[-1]) if len(mine) else None

    @cached_property
    def jumps_now(self) -> Array:
        """The times that our machine's speed has changed for good by now, [P]."""
        return self.h.jumps[:, self.last_here] if self.last_here is not None else np.zeros(len(self.h))

    @cached_property
    def moment(self) -> Array:
        """Covariance of our machine's speed now with that at each visit, [P, K]."""
        at_s = self.now_s + self.belief.prior.visit_s / 2
        return self.belief.kernel.moment(self.h, self.jumps_now, at_s, 0)

    @cached_property
    def is_clean(self) -> float:
        """Probability that a visit now is not disturbed; one that is is taken to tell nothing."""
        if self.last_here is None:
            return 1 - SLOWED_FIRST
        return float(1 - self.mix(np.where(self.h.slowed[:, self.last_here] == 1, STAYS_SLOWED, SLOWED)))

    @cached_property
    def uncertain(self) -> Array:
        """Variance of how far each candidate is ahead of the leader, [n]."""
        between = self.gain_matrix - self.gain_matrix[:, [self.leader]]
        within = self.own_variance + self.own_variance[:, [self.leader]] - 2 * self.covariance_with_leader
        within = within - (between * (self.common - self.common[:, [self.leader]])).sum(2)
        found = self.mix(np.maximum(within, 0) + self.apart**2)
        found[self.leader] = 0
        return found

    @cached_property
    def visit_variance(self) -> float:
        """Variance between two visits side by side, one timed step each."""
        grid, at = self.belief.grid, self.h.at
        drift = grid.drift_sd[at] ** 2 * (1 - np.exp(-self.belief.prior.visit_s / grid.drift_s[at]))
        return float(self.mix(grid.visit_sd[at] ** 2 + drift)) + self.belief.noise**2

    def learned(self, covariance: Array, variance: Array, told: Array) -> Array:
        """Return the variance of what ``ahead`` will be after an observation: learned within each hypothesis, from its
        ``covariance`` with "how far ahead" and its ``variance``, and by telling hypotheses apart, which expect it to
        differ from its mean by ``told``; all [P, n]."""
        apart = self.mix(self.apart * told) ** 2 / np.maximum(self.mix(variance + told**2), 1e-12)
        return self.mix(covariance**2 / variance) + apart

    def of_visits(self) -> Array:
        """Return the gain of one visit to each candidate, [n]."""
        belief, h, lead = self.belief, self.h, [self.leader]
        own = belief.kernel.own_moment(h, self.jumps_now, 0) + belief.grid.visit_sd[h.at] ** 2 + belief.noise**2
        observed = self.common + self.moment[:, None, :]  # covariance of its logarithm with each visit
        reduction = self.gain_matrix + np.matmul(self.moment[:, None, :], h.precision)
        variance = self.own_variance + own[:, None] - (reduction * observed).sum(2)
        expected = self.means + (self.moment * h.alpha).sum(1)[:, None]
        told = expected - self.mix(expected)
        between = self.gain_matrix - self.gain_matrix[:, lead]
        covariance = self.own_variance - self.covariance_with_leader - (between * observed).sum(2)
        gain = expected_gain(self.ahead, self.learned(covariance, variance, told), ~self.is_seen)
        surprise = self.learned(covariance + MISSED_SD**2, variance + MISSED_SD**2, told)
        gain += np.where(
            self.is_seen, 0, belief.prior.missed * (expected_gain(self.ahead, surprise, ~self.is_seen) - gain)
        )
        of_leader = self.covariance_with_leader - self.own_variance[:, lead] - (between * observed[:, lead]).sum(2)
        learned = self.learned(of_leader, variance[:, lead], told[:, lead])
        gain[self.leader] = expected_gain(self.ahead, learned, ~self.is_seen)[self.rivals].max(initial=0)
        return np.asarray(self.is_clean * np.where(self.may_win, gain, 0))

    @cached_property
    def rivals(self) -> Ints:
        """The others that ran and may win."""
        found = self.is_seen & self.may_win
        found[self.leader] = False
        return np.flatnonzero(found)

    def of_pairs_per_s(self) -> Array:
        """Return the gain per second of visiting each candidate beside the leader, some times: where one visit tells
        little for noise, several may be worth their time; [n]."""
        cost = self.cost_s + self.cost_s[self.leader]
        best = gain_per_repetition(self.ahead, self.uncertain, 2 * self.visit_variance, ~self.is_seen) / cost
        best[self.leader] = 0
        return np.asarray(self.is_clean * np.where(self.may_win & self.may_visit, best, 0))

    def of_rounds_per_s(self, promising: Ints) -> float:
        """Return the gain per second of the best round of visits to the leader and the first few of ``promising``: a
        first visit that is worth little may be worth its time together with others."""
        order = promising[:ROUND]
        if not len(order):
            return 0.0
        ahead, uncertain, best = self.ahead[order], np.maximum(self.uncertain[order], 0), 0.0
        now = np.maximum(0, np.maximum.accumulate(np.where(self.is_seen[order], ahead, -np.inf)))
        cost = self.cost_s[self.leader] + np.cumsum(self.cost_s[order])
        for times in TIMES:
            spread = uncertain / np.sqrt(np.maximum(uncertain + self.visit_variance / times, 1e-12))
            after = np.maximum(np.maximum.accumulate(ahead + spread * NORMAL[:, : len(order)], axis=1), 0).mean(0)
            best = max(best, float(((after - now) / (expected_repetitions(times) * cost)).max()))
        return self.is_clean * best

    def of_staying(self) -> float:
        """Return the gain of one more timed step of the last visit: it has all in common with that visit but the noise
        of steps."""
        belief, h = self.belief, self.h
        last, noise = int(belief.visits.row[-1]), belief.noise**2 / len(belief.visits.steps[-1])
        against = self.rivals if last == self.leader else np.array([last])
        if not self.may_win[last] or not len(against):
            return 0.0
        between = self.gain_matrix - self.gain_matrix[:, [self.leader]]
        variance = (noise - noise**2 * h.precision[:, -1, -1] + belief.noise**2)[:, None]
        told = -noise * h.alpha[:, [-1]]
        learned = self.learned(noise * between[:, :, -1], variance, told - self.mix(told))
        return float(expected_gain(self.ahead, learned, np.zeros(len(self.ahead), bool))[against].max())
