"""How long a step takes with any micro-batch size, learned from a few steps: Bayesian regression on the schedule's own
formula. ::

    step = (m + k x bubble) x b x c x (1 + h / b^q)  +  constant

``bubble`` is how many micro-batches' time the schedule idles (p - 1 under 1F1B), and ``k`` how much more or less than
that the real pipeline loses. ``c`` is the time of a sequence in large micro-batches; in small ones it is ``h / b^q``
longer, so that it falls with b and levels off. ``constant``: what a step takes once, the optimizer and the sum of
gradients over replicas. A smooth deviation and one of each candidate's own stand for what the formula does not know.
Both a candidate's own deviation and how far a run lies off its candidate's mean have one of three widths: a pipeline
that the formula fits, a usual one, one that has quirks.

The posterior is exact in the scale and the deviations, which are Gaussian in the logarithm of the step, and a sum over
a grid in the rest, laid a second time where the first has found something. Widths and centres of the priors are those
under which the held-out steps of 26 published sweeps are likeliest (``python -m tests.bench fit``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Costs
from autotune.predict.simulator.wavefront import step_time
from autotune.records.prediction import Candidate
from autotune.records.timed_run import TimedRun

Array = NDArray[np.float64]

GRANULARITY, GRANULARITY_SPREAD = 0.30, 0.70
"""``h``: median, and standard deviation of its logarithm."""
BUBBLE, BUBBLE_SPREAD = 1.3, 1.05
"""``k``: median, and standard deviation of its logarithm. Wide: stages that are not alike lose more, and a log may not
tell the true batch."""
CONSTANT, CONSTANT_SPREAD = 0.055, 0.8
"""The constant as a share of the median run's step: median, and standard deviation of its logarithm."""
EXPONENTS = (0.8, 1.0)
"""``q``: fixed costs per micro-batch alone, or kernels that grow efficient more slowly than that."""
OWN = (0.003, 0.012, 0.09)
"""Relative standard deviations of each candidate's own deviation, by the kind of pipeline."""
NOISE = (0.003, 0.009, 0.04)
"""Relative standard deviations of a run around its candidate's mean, by the kind of pipeline."""
KIND_WEIGHTS = (0.45, 0.40, 0.15)
"""How likely each of the three kinds is."""
SMOOTH, SMOOTH_DOUBLINGS = 0.004, 1.5
"""Relative standard deviation of the smooth deviation, and over how many doublings of b it changes."""
PLACEMENT = 0.03
"""Relative standard deviation that candidates whose stages lie alike share."""
SCALE = 5.0
"""Standard deviation of the logarithm of ``c``: nothing is known of it."""
POINTS = {"h": 16, "k": 12, "constant": 4}
"""Points of the grid along each parameter."""
REACH = 3.0
"""Standard deviations that the first grid spans to either side."""
NEGLIGIBLE = 1e-4
"""Share of the posterior below which a point of the first grid is left out of the second."""
DRAWS = 4096


class Formula(NamedTuple):
    """What the formula needs of candidates, float64[C] each: micro-batches, idle micro-batches, b, and sequences."""

    micro_batches: Array
    bubble: Array
    size: Array

    @classmethod
    def of(cls, ranks: int, candidates: Sequence[Candidate]) -> "Formula":
        """Return it for candidates on so many ranks, whose stages take equally long."""
        return cls(
            np.array([one.micro_batches for one in candidates], float),
            np.array([makespan(ranks, one) - one.micro_batches for one in candidates]),
            np.array([one.micro_batch_size for one in candidates], float),
        )


def makespan(ranks: int, candidate: Candidate) -> float:
    """Return how long a step of the schedule takes, in times that a micro-batch takes on all stages of one rank; a
    backward is twice a forward."""
    schedule = build_schedule(candidate.schedule, ranks, candidate.micro_batches, candidate.virtual_stages)
    each = [1.0 / (3 * candidate.virtual_stages)] * schedule.stages
    none = [0.0] * (schedule.stages - 1)
    costs = Costs(each, [2 * one for one in each], each, each, none, none)
    return step_time(schedule, costs).makespan


class Grid(NamedTuple):
    """Points of the parameters that are summed over, float64[G] each; h, k and constant in standard deviations of
    their prior, ``kind`` as an index."""

    h: Array
    k: Array
    constant: Array
    exponent: Array
    kind: NDArray[np.int64]

    @classmethod
    def over(cls, spans: Sequence[tuple[float, float]]) -> "Grid":
        """Return the grid between the ends of three spans: of h, k and the constant."""
        axes = [np.linspace(low, high, count) for (low, high), count in zip(spans, POINTS.values(), strict=True)]
        mesh = np.meshgrid(*axes, np.array(EXPONENTS), np.arange(len(NOISE)), indexing="ij")
        h, k, constant, exponent, kind = (axis.ravel() for axis in mesh)
        return cls(h, k, constant, exponent, kind)

    @property
    def log_prior(self) -> Array:
        """Logarithm of the prior, but for a constant."""
        found: Array = np.log(np.array(KIND_WEIGHTS))[self.kind] - (self.h**2 + self.k**2 + self.constant**2) / 2
        return found

    def log_steps(self, formula: Formula, runs: int) -> Array:
        """Return float64[G, C]: logarithm of the formula with c = 1; the first ``runs`` candidates are those that
        ran."""
        h, k = (
            middle * np.exp(spread * axis)[:, None]
            for middle, spread, axis in ((GRANULARITY, GRANULARITY_SPREAD, self.h), (BUBBLE, BUBBLE_SPREAD, self.k))
        )
        once = CONSTANT * np.exp(CONSTANT_SPREAD * self.constant)[:, None]
        each = formula.size * (1 + h * formula.size ** -self.exponent[:, None])
        moving = (formula.micro_batches + k * formula.bubble) * each
        found: Array = np.log(moving + once * np.median(moving[:, :runs], axis=1, keepdims=True))
        return found


class Posterior(NamedTuple):
    """What is known of steps: ``weights`` float64[G] of grid points; given one, the logarithm of every candidate's step
    has ``means`` float64[G, C] and, by the kind of pipeline, ``covariances`` float64[3, C, C]."""

    grid: Grid
    weights: Array
    means: Array
    covariances: Array

    def span(self, axis: Array) -> tuple[float, float]:
        """Return between which points of one parameter the posterior lies."""
        points, place = np.unique(axis, return_inverse=True)
        shares = np.bincount(place, weights=self.weights)
        width = points[1] - points[0]
        held = points[shares >= NEGLIGIBLE * shares.max()]
        return float(held.min() - width), float(held.max() + width)

    @property
    def noise(self) -> float:
        """Relative standard deviation of a run around its candidate's mean."""
        return float(self.weights @ np.array(NOISE)[self.grid.kind])

    def constant(self, steps: Array) -> float:
        """Return the seconds of a step that are the same in all of ``steps``, seconds of each candidate."""
        share = CONSTANT * np.exp(CONSTANT_SPREAD * self.grid.constant)
        return float(self.weights @ (share / (1 + share))) * float(np.min(steps))

    def draws(self) -> tuple[Array, Array]:
        """Return float64[DRAWS, C], twice: steps in seconds as they may be in the long run, and as another run would
        show them."""
        random = np.random.default_rng(0)
        points = random.choice(len(self.weights), DRAWS, p=self.weights)
        kinds = self.grid.kind[points]
        logs = self.means[points]
        for kind, covariance in enumerate(self.covariances):
            chosen = kinds == kind
            normal = random.standard_normal((int(chosen.sum()), len(covariance)))
            logs[chosen] += normal @ root(covariance).T
        off = np.array(NOISE)[kinds][:, None] * random.standard_normal(logs.shape)
        return np.exp(logs), np.exp(logs + off)


def root(covariance: Array) -> Array:
    """Return a matrix whose product with its transpose is the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    found: Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return found


def prior_covariance(candidates: Sequence[Candidate]) -> Array:
    """Return float64[C, C]: how the logarithms of candidates' steps vary together beyond the formula, but for the
    deviation that is each one's own."""
    sizes = np.log2([one.micro_batch_size for one in candidates])
    placements = {one.placement: at for at, one in enumerate(candidates)}
    laid = np.array([placements[one.placement] for one in candidates])
    apart = (sizes[:, None] - sizes[None]) / SMOOTH_DOUBLINGS
    found: Array = SCALE**2 + SMOOTH**2 * np.exp(-(apart**2) / 2) + PLACEMENT**2 * (laid[:, None] == laid[None])
    return found


def learn(ranks: int, runs: Sequence[TimedRun], candidates: Sequence[Candidate]) -> Posterior:
    """Return what ``runs`` on ``ranks`` ranks say of the steps of ``candidates``. There must be a run."""
    everything = [run.candidate for run in runs] + list(candidates)
    formula, covariance = Formula.of(ranks, everything), prior_covariance(everything)
    names = {one: at for at, one in enumerate(everything)}
    same = np.array([names[one] for one in everything])
    own = (same[:, None] == same[None]).astype(float)
    first = condition(Grid.over([(-REACH, REACH)] * 3), formula, covariance, own, runs)
    spans = [first.span(axis) for axis in (first.grid.h, first.grid.k, first.grid.constant)]
    return condition(Grid.over(spans), formula, covariance, own, runs)


def condition(grid: Grid, formula: Formula, shared: Array, own: Array, runs: Sequence[TimedRun]) -> Posterior:
    """Return the posterior over one grid. ``shared``, ``own``: covariance beyond the formula, and where its rows are of
    the same candidate; in both and in ``formula`` the runs' candidates come first."""
    count = len(runs)
    logs, seen = grid.log_steps(formula, count), np.log([run.step_time_s for run in runs])
    errors = np.diag([run.standard_error**2 for run in runs])
    residual = seen - logs[:, :count]
    means, likelihood, covariances = logs[:, count:].copy(), np.empty(len(logs)), []
    for kind, (noise, width) in enumerate(zip(NOISE, OWN, strict=True)):
        covariance = shared + width**2 * own
        across = covariance[count:, :count]
        observed = covariance[:count, :count] + errors + noise**2 * np.eye(count)
        inverse, chosen = np.linalg.inv(observed), grid.kind == kind
        means[chosen] += residual[chosen] @ (across @ inverse).T
        squares = np.einsum("gi,ij,gj->g", residual[chosen], inverse, residual[chosen])
        likelihood[chosen] = -(squares + np.linalg.slogdet(observed)[1]) / 2
        covariances.append(covariance[count:, count:] - across @ inverse @ across.T)
    posterior = likelihood + grid.log_prior
    weights = np.exp(posterior - posterior.max())
    return Posterior(grid, weights / weights.sum(), means, np.array(covariances))
