"""The belief: one joint posterior over every candidate's step and the machine's drift, given every timing so far.

A visit k to candidate c, at time t on machine i, takes per step ::

    log step[k]  =  f[c]  +  d[i](t)  +  jumps[i] so far  +  offset[i]  +  slowed[k] · slowdown[k]
                    +  noise of the visit  +  noise of steps

    f[c]      log predicted  +  scale · errors that candidates share, and its own  +  missed[c] · error     (``prior``)
    d[i](t)   the machine's drift, an Ornstein-Uhlenbeck process
    jumps     the machine's speed has changed for good
    offset    of a machine beside what was predicted
    slowdown  by something that disturbed the visit

Given the hyperparameters, which visits were slowed, where the speed jumped, and which candidates the model misses, all
of this is normal, and Bayes' rule is linear algebra (Rasmussen and Williams, Gaussian Processes for Machine Learning,
section 2.2). These discrete unknowns are carried as weighted hypotheses: every visit splits each of them, and the
likeliest are kept (a Gaussian-sum filter; Alspach and Sorenson 1972).

``f`` is the step of a candidate at the machine's usual speed: that at which the machine did most of its work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from autotune.predict.uncertainty import QUANTILE
from autotune.records.prediction import Candidate, Prediction, Revision
from autotune.records.verdict import Estimate
from autotune.search.belief.hypotheses import Hypotheses, Split, grown
from autotune.search.belief.prior import (
    JUMP,
    JUMP_BETWEEN_SESSIONS,
    JUMP_SINCE_PROFILE,
    MISSED_SD,
    SLOWDOWN,
    SLOWED,
    SLOWED_FIRST,
    STAYS_SLOWED,
    STEP_NOISE,
    Array,
    Ints,
    Prior,
    grid_of,
    prior_of,
)
from autotune.search.belief.visits import Kernel, Visits
from autotune.search.timing import Timing

NEWS = 0.15  # change of the step noise, in logarithms, that makes hypotheses be weighed anew
DRAWN_FROM, DRAWS, MOST_ROWS = 32, 4096, 40  # hypotheses, draws, candidates
OFF_USUAL = 0.05  # a visit is at the usual speed where the machine's was so near to the median of all


@dataclass(frozen=True)
class Draws:
    """Throughputs drawn from the belief: logarithms of sequences per second of ``rows``, [draws, rows]."""

    rows: Ints
    log_rate: Array

    def of(self, row: int) -> Array:
        """Return the draws of the candidate in ``row``."""
        return np.asarray(self.log_rate[:, int(np.flatnonzero(self.rows == row)[0])])


class Belief:
    """What is believed of the ``candidates`` of ``predictions``, whose errors ``prior`` states where their own
    uncertainties do not; timings are given in the order in which they become
    known, one at a time by ``add``, or step by step by ``begin`` and ``see``. ``here`` names our own machine."""

    def __init__(self, predictions: Mapping[Candidate, Prediction], here: str = "", prior: Prior | None = None) -> None:
        self.predictions, self.candidates = dict(predictions), list(predictions)
        self.row = {candidate: row for row, candidate in enumerate(self.candidates)}
        self.prior = prior or prior_of(predictions)
        self.grid = grid_of(self.prior)
        self.log_work = np.log([candidate.job_sequences for candidate in self.candidates])
        self.visits, self.noise = Visits(), STEP_NOISE
        self._machines = {here: 0}
        self._before = self.now = Hypotheses.before_anything(self.grid.log_weight)

    # -- what was seen ------------------------------------------------------------------------------------------------

    def add(self, timing: Timing) -> None:
        """Take in a whole visit."""
        self.begin(timing.candidate, timing.machine, timing.session)
        self._note(np.log(timing.step_times_s).tolist(), timing.at_s)

    def begin(self, candidate: Candidate, machine: str = "", session: int = 0) -> None:
        """Begin a visit."""
        self._before = self.now
        self.visits.begin(self.row[candidate], self._machines.setdefault(machine, len(self._machines)), session)

    def see(self, step_s: float, at_s: float) -> None:
        """Take in another timed step of the visit that was begun, the middle of which is now at ``at_s``."""
        self._note([float(np.log(step_s))], at_s)

    def abandon(self) -> None:
        """Forget the visit that was begun: it did not end well."""
        self.visits.drop()
        self.now = self._before

    def _note(self, log_steps: list[float], at_s: float) -> None:
        self.visits.steps[-1].extend(log_steps)
        self.visits.at_s[-1] = at_s
        noise = self.visits.step_noise()
        if abs(np.log(noise / self.noise)) > NEWS:
            self.noise = noise
            if len(self.visits) > 1:
                self._before = self._before.with_covariance(self.kernel.all_visits(self._before))
        self.now = self._extended(self._before)

    @property
    def kernel(self) -> Kernel:
        """Covariances of visits at the noise that steps are seen to have."""
        return Kernel(self.prior, self.grid, self.visits, self.noise)

    def _extended(self, before: Hypotheses) -> Hypotheses:
        """Return every hypothesis split by what may have befallen the last visit; the likeliest of them."""
        k = len(self.visits) - 1
        split = self._split(before, k)
        parent = before.take(split.parent)
        between, own = self.kernel.visit(parent, k, split.slowed, split.missed, split.jumps)
        mean = self.prior.log_step[self.visits.row[k]] + SLOWDOWN * split.slowed
        return grown(before, split, between, own, np.mean(self.visits.steps[k]) - mean)

    def _split(self, before: Hypotheses, k: int) -> Split:
        """Return every way to continue the hypotheses by visit ``k``: was it slowed, does the model miss something of
        its candidate (where that was not asked before), has the machine's speed jumped before it?"""
        v, count = self.visits, len(before)
        last, known = v.before(k), np.flatnonzero(v.row[:k] == v.row[k])
        kinds = list(product((0, 1), (0, 1), (0, 1) if not len(known) else (0,)))
        parent = np.tile(np.arange(count), len(kinds))
        slowed, jumped, missed = (np.repeat(np.array(column, float), count) for column in zip(*kinds, strict=True))
        log_chance = self._log_chance_slowed(before, last)[parent, slowed.astype(int)]
        chance, jumps = JUMP_SINCE_PROFILE, jumped
        if last is not None:
            chance = JUMP if v.session[last] == v.session[k] else JUMP_BETWEEN_SESSIONS
            jumps = before.jumps[parent, last] + jumped
        log_chance = log_chance + np.log(np.where(jumped == 1, chance, 1 - chance))
        if len(known):
            missed = before.missed[parent, known[0]]
        else:
            log_chance = log_chance + np.log(np.where(missed == 1, self.prior.missed, 1 - self.prior.missed))
        return Split(parent, slowed, missed, jumps, log_chance)

    def _log_chance_slowed(self, before: Hypotheses, last: int | None) -> Array:
        """Return log probabilities that a visit is not slowed and that it is, [P, 2], after visit ``last``."""
        chance = np.full(len(before), SLOWED_FIRST)
        if last is not None:
            chance = np.where(before.slowed[:, last] == 1, STAYS_SLOWED, SLOWED)
        return np.asarray(np.log(np.stack([1 - chance, chance], axis=1)))

    # -- what follows -------------------------------------------------------------------------------------------------

    @property
    def seen(self) -> frozenset[Candidate]:
        """The candidates of which steps were timed."""
        return frozenset(self.candidates[row] for row in self.visits.row)

    def covariance_with_visits(self, h: Hypotheses, rows: Ints | slice = slice(None)) -> Array:
        """Return the covariance of candidates' own steps with each visit, [P, rows, K]."""
        same = (np.arange(len(self.candidates))[rows, None] == self.visits.row).astype(float)
        shared = self.prior.covariance[rows][:, self.visits.row]
        return np.asarray(
            self.grid.scale[h.at][:, None, None] ** 2 * shared + MISSED_SD**2 * h.missed[:, None, :] * same
        )

    def means(self, h: Hypotheses) -> Array:
        """Return the expected log step of every candidate under each hypothesis, [P, n]."""
        alpha = h.alpha
        shared = self.grid.scale[h.at][:, None] ** 2 * (alpha @ self.prior.covariance[self.visits.row])
        of_candidate = (self.visits.row[:, None] == np.arange(len(self.candidates))).astype(float)
        return np.asarray(self.prior.log_step + shared + MISSED_SD**2 * ((alpha * h.missed) @ of_candidate))

    def missed_variance(self, h: Hypotheses) -> Array:
        """Return what an error that the model misses adds to each candidate's prior variance, [P, n]."""
        found = np.zeros((len(h), len(self.candidates)))
        found[:, self.visits.row] = MISSED_SD**2 * h.missed
        return found

    def expected_log_step(self) -> Array:
        """Return the expected log step of every candidate, [n]."""
        h = self.now.likeliest(DRAWN_FROM)
        return np.asarray(h.weight @ self.means(h)) if len(self.visits) else self.prior.log_step

    def usual(self) -> Array:
        """Return the weight of each visit in the machine's usual speed, [K]; adds up to 1, or to 0 before any of ours.

        Visits count by the seconds that they timed, and only where the machine was within OFF_USUAL of its median.
        """
        v = self.visits
        weight = np.array([np.exp(steps).sum() for steps in v.steps], float) * (v.machine == 0)
        if not weight.sum():
            return np.asarray(weight)
        speed = self.machine_log_speed(is_slowed_too=False)
        order = np.argsort(speed)
        reached = np.cumsum(weight[order])
        middle = speed[order[np.searchsorted(reached, reached[-1] / 2)]]
        weight = weight * (np.abs(speed - middle) <= OFF_USUAL)
        return np.asarray(weight / weight.sum())

    def machine_log_speed(self, is_slowed_too: bool = True) -> Array:
        """Return by how much more than ``f`` a step took at each visit for the machine's sake, in logarithms, [K]."""
        h = self.now
        kernel, alpha = self.kernel, h.alpha
        found = np.einsum("pkl,pl->pk", kernel.all_moments(h), alpha)
        if is_slowed_too:
            slowed = np.stack([kernel.slowdown(h, k, h.slowed[:, k]) for k in range(len(self.visits))], axis=1)
            found += SLOWDOWN * h.slowed + np.einsum("pkl,pl->pk", slowed, alpha)
        return np.asarray(h.weight @ found)

    def chance_disturbed(self, candidate: Candidate) -> float:
        """Return the probability that every visit to the candidate was slowed by something."""
        of_it = self.visits.row == self.row[candidate]
        return float(self.now.weight @ self.now.slowed[:, of_it].all(1)) if of_it.any() else 0.0

    def speed_factors(self) -> Array:
        """Return how many times longer than usual a step took at each visit, whatever slowed it, [K]."""
        usual = self.usual() @ self.machine_log_speed(is_slowed_too=False)
        return np.asarray(np.exp(self.machine_log_speed() - usual))

    def log_steps(self) -> tuple[Array, Array]:
        """Return mean and standard deviation of the log step of every candidate at the machine's usual speed, [n]."""
        if not len(self.visits):
            h, shift = self.now, np.zeros(len(self.now))
            variance = self.grid.scale[h.at, None] ** 2 * np.diag(self.prior.covariance)
            means = np.broadcast_to(self.prior.log_step, variance.shape)
        else:
            h, usual = self.now.likeliest(DRAWN_FROM), self.usual()
            moments = np.einsum("k,pkl->pl", usual, self.kernel.all_moments(h))  # of the usual speed with each visit
            shift = (moments * h.alpha).sum(1)
            means = self.means(h) + shift[:, None]
            common = self.covariance_with_visits(h) + moments[:, None, :]
            variance = self.grid.scale[h.at, None] ** 2 * np.diag(self.prior.covariance) + self.missed_variance(h)
            variance = variance + (moments @ usual)[:, None] - (np.matmul(common, h.precision) * common).sum(2)
        mean = h.weight @ means
        return mean, np.sqrt(np.maximum(h.weight @ (variance + (means - mean) ** 2), 1e-12))

    def estimates(self) -> dict[Candidate, Estimate]:
        """Return the estimate of every candidate."""
        mean, sd = self.log_steps()
        found = {}
        for candidate, log_step, sigma in zip(self.candidates, mean.tolist(), sd.tolist(), strict=True):
            step, low, high = np.exp([log_step, log_step - QUANTILE * sigma, log_step + QUANTILE * sigma]).tolist()
            found[candidate] = Estimate(
                step_time_s=step,
                step_time_low_s=low,
                step_time_high_s=high,
                throughput_seq_s=candidate.job_sequences / step,
            )
        return found

    def revisions(self) -> dict[Candidate, Revision]:
        """Return every prediction again, with what was timed: the 90 % interval is that of a measurement now."""
        mean, sd = self.log_steps()
        found = {}
        for candidate, log_step, sigma in zip(self.candidates, mean.tolist(), sd.tolist(), strict=True):
            spread = QUANTILE * np.hypot(sigma, self.predictions[candidate].uncertainty.moment)
            step, low, high = np.exp([log_step, log_step - spread, log_step + spread]).tolist()
            found[candidate] = Revision(
                step_time_s=step,
                step_time_low_s=low,
                step_time_high_s=high,
                throughput_seq_s=candidate.job_sequences / step,
                sigma=sigma,
            )
        return found

    def draws(self, count: int = DRAWS, seed: int = 0) -> Draws:
        """Return throughputs of the likeliest winners, and of all candidates that ran, drawn from the belief; always
        with the same random numbers."""
        rng, h = np.random.default_rng(seed), self.now.likeliest(DRAWN_FROM)
        means, rows = self.means(h), self._hopeful(h)
        scale2, seen = self.grid.scale[h.at][:, None, None] ** 2, np.unique(self.visits.row)
        common = self.covariance_with_visits(h, rows)
        covariance = scale2 * self.prior.covariance[np.ix_(rows, rows)] + np.eye(len(rows)) * (
            self.missed_variance(h)[:, rows][:, :, None] + 1e-10
        )
        covariance -= np.matmul(np.matmul(common, h.precision), common.transpose(0, 2, 1))
        root = np.linalg.cholesky(covariance)
        drawn = [
            means[p, rows] + rng.standard_normal((number, len(rows))) @ root[p].T
            for p, number in enumerate(rng.multinomial(count, h.weight))
        ]
        log_step = np.concatenate(drawn)
        fresh = ~np.isin(rows, seen)
        missed = rng.random((count, int(fresh.sum()))) < self.prior.missed
        log_step[:, fresh] += MISSED_SD * rng.standard_normal(missed.shape) * missed
        return Draws(rows, self.log_work[rows] - log_step)

    def _hopeful(self, h: Hypotheses) -> Ints:
        """Return the candidates that ran, and the MOST_ROWS that are likeliest to be fast."""
        seen = np.unique(self.visits.row)
        spread = self.grid.scale[h.at][:, None] * np.diag(self.prior.covariance) ** 0.5
        spread = spread * np.where(np.isin(np.arange(len(self.candidates)), seen), 0.3, 1.0)
        hope = h.weight @ (self.log_work - self.means(h) + 2 * spread)
        return np.union1d(np.argsort(-hope)[:MOST_ROWS], seen)
