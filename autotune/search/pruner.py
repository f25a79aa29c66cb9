"""When a trial has shown enough: a candidate that is worse beyond doubt ends after one step or two."""

from math import log, sqrt

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from autotune.search.noise import step_noise
from autotune.search.prospects import TIE
from autotune.search.visits import VISIT_NOISE

DOUBT = 0.01  # the chance to end a trial whose candidate is within the tolerance of the best


class WorseBeyondDoubtPruner(BasePruner):
    """Ends a trial whose throughput lies beyond doubt below the best finished trial's, by more than the tolerance.

    The values reported are throughputs of single steps. Student's t-test of the mean logarithms, with the noise pooled
    over all trials of the study on this machine, which makes the noise of all of them: two steps of this trial are
    judged by what twenty steps of the others have shown. Trials of other controllers of the study ran elsewhere.

    Optuna's own pruners do not fit. ``WilcoxonPruner`` pairs step k of one trial with step k of the best one; these ran
    minutes apart and share nothing, so pairing cancels no noise, and its signed ranks cannot reach a level below
    1 / 2^n after n steps: 25 % after two. ``MedianPruner`` and the halving family compare learning curves, which rise
    with the step; the steps of a candidate are repetitions.
    """

    def __init__(self, tolerance: float = TIE) -> None:
        self.tolerance = tolerance

    def prune(self, study: "optuna.study.Study", trial: FrozenTrial) -> bool:
        mine = list(trial.intermediate_values.values())
        here, states = trial.user_attrs.get("controller"), (TrialState.COMPLETE, TrialState.PRUNED)
        others = [one for one in study.get_trials(False, states) if one.user_attrs.get("controller") == here]
        finished = [one for one in others if one.state == TrialState.COMPLETE and fits(one) and one.intermediate_values]
        if not mine or not finished:
            return False
        best = max(finished, key=lambda other: other.value or 0.0)
        theirs = list(best.intermediate_values.values())
        noise = step_noise([mine, *(list(one.intermediate_values.values()) for one in others)])
        sigma = sqrt(noise.sigma**2 * (1 / len(mine) + 1 / len(theirs)) + 2 * VISIT_NOISE**2)
        return mean_log(theirs) - mean_log(mine) + log(1 - self.tolerance) > noise.bound(DOUBT) * sigma


def fits(trial: FrozenTrial) -> bool:
    """Whether it keeps within the memory limit."""
    return all(value <= 0 for value in trial.constraints.values())


def mean_log(values: list[float]) -> float:
    """Mean of the logarithms."""
    return sum(map(log, values)) / len(values)
