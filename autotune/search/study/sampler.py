"""Who proposes the next candidate: the belief, which knows the cost model, or any of Optuna's samplers.

All are ``optuna.samplers.BaseSampler`` on the same study and the same flat space (``autotune.search.space``).
"""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autotune.config import SamplerName
from autotune.errors import UsageError
from autotune.records.prediction import Candidate
from autotune.search.space import Space, params_of

if TYPE_CHECKING:
    from optuna.study import Study

Distributions = dict[str, BaseDistribution]


class WholeCandidateSampler(BaseSampler):
    """Proposes all dimensions of a trial at once, as ``propose`` says; always a candidate that was not tried yet.

    ``wanted``: the candidate of the next trial, where the search has decided that already. Optuna's own way, to enqueue
    it, would leave a waiting trial behind where the process dies before it is begun.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.wanted: Candidate | None = None

    def propose(self, study: "Study", trial: FrozenTrial) -> Candidate:
        """Return the candidate to try."""
        raise NotImplementedError

    def infer_relative_search_space(self, study: "Study", trial: FrozenTrial) -> Distributions:
        return dict(self.space.distributions)

    def sample_relative(self, study: "Study", trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        return params_of(self.wanted or self.propose(study, trial)) if search_space else {}

    def sample_independent(
        self, study: "Study", trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"there is no dimension {param_name!r}; the dimensions are {', '.join(self.space.values)}")


class CostModelSampler(WholeCandidateSampler):
    """Proposes what the belief has chosen: ``wanted``."""

    def propose(self, study: "Study", trial: FrozenTrial) -> Candidate:
        raise AssertionError("the belief chooses the candidate of every trial")


class OnCandidates(WholeCandidateSampler):
    """Any Optuna sampler, its proposals moved to the nearest candidate that was not tried yet.

    The trial then holds what really ran. ``left``: the candidates that may be tried.
    """

    def __init__(self, space: Space, inner: BaseSampler, left: Callable[[], Sequence[Candidate]]) -> None:
        super().__init__(space)
        self.inner, self.left = inner, left

    def __str__(self) -> str:
        return str(self.inner)

    def before_trial(self, study: "Study", trial: FrozenTrial) -> None:
        self.inner.before_trial(study, trial)

    def propose(self, study: "Study", trial: FrozenTrial) -> Candidate:
        trial = study.get_trials(deepcopy=False)[trial.number]  # with what GridSampler noted in before_trial
        joint = self.inner.infer_relative_search_space(study, trial)
        point = dict(self.inner.sample_relative(study, trial, joint))
        for name, distribution in self.space.distributions.items():
            if name not in point:
                point[name] = (
                    self.space.values[name][0]
                    if distribution.single()
                    else self.inner.sample_independent(study, trial, name, distribution)
                )
        return self.space.nearest(point, self.left())


def check_sampler(name: SamplerName) -> None:
    """Raise UsageError where the sampler needs what is not installed."""
    if name == "gp" and find_spec("scipy") is None:
        raise UsageError("--sampler gp needs scipy, which is not installed: pip install scipy, or take another sampler")


def make_sampler(
    name: SamplerName, space: Space, seed: int, left: Callable[[], Sequence[Candidate]]
) -> CostModelSampler | OnCandidates:
    """Return the sampler of that name; ``left``: the candidates that may be tried. ``gp`` loads torch here."""
    if name == "cost-model":
        return CostModelSampler(space)
    check_sampler(name)
    trials = max(3, min(10, len(left()) // 5))  # drawn at random before a model is fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        inner: BaseSampler
        if name == "tpe":
            inner = optuna.samplers.TPESampler(seed=seed, n_startup_trials=trials)
        elif name == "gp":
            inner = optuna.samplers.GPSampler(seed=seed, n_startup_trials=trials, warn_independent_sampling=False)
        elif name == "grid":
            inner = optuna.samplers.GridSampler(space.values, seed=seed)
        else:
            inner = optuna.samplers.RandomSampler(seed=seed)
    return OnCandidates(space, inner, left)
