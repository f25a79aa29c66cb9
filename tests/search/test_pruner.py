"""A trial ends early when it is worse beyond doubt, and only then; on real Optuna studies in memory."""

import random

import optuna
import pytest

from autotune.search.pruner import DOUBT, WorseBeyondDoubtPruner
from autotune.search.search import LEAST_STEPS

optuna.logging.set_verbosity(optuna.logging.ERROR)


def finished(study, rates):
    trial = study.ask()
    for number, rate in enumerate(rates):
        trial.report(rate, number)
    study.tell(trial, sum(rates) / len(rates))


def would_prune(study, rates, least=1):
    """After which step the trial is ended, or None. ``least``: the search asks only after so many."""
    trial = study.ask()
    for number, rate in enumerate(rates):
        trial.report(rate, number)
        if number + 1 >= least and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return number + 1
    study.tell(trial, sum(rates) / len(rates))
    return None


def study_with(rates, tolerance=0.01):
    study = optuna.create_study(direction="maximize", pruner=WorseBeyondDoubtPruner(tolerance))
    finished(study, rates)
    return study


@pytest.mark.parametrize(("rate", "after"), [(0.5, 1), (0.9, 1), (0.999, None), (1.0, None), (1.5, None)])
def test_the_clearly_worse_ends_at_once(rate, after):
    assert would_prune(study_with([1.0, 1.002, 0.999, 1.001]), [rate, rate * 1.001, rate * 0.999]) == after


def test_nothing_is_pruned_before_there_is_a_best():
    study = optuna.create_study(direction="maximize", pruner=WorseBeyondDoubtPruner())
    assert would_prune(study, [0.1, 0.1]) is None


def test_noise_asks_for_more_steps():
    wild = study_with([1.0, 1.25, 0.8, 1.1, 0.9])
    assert would_prune(wild, [0.9, 0.95, 0.85]) is None
    assert would_prune(study_with([1.0, 1.001, 0.999, 1.0, 1.0]), [0.9, 0.9]) == 1


def test_an_equal_candidate_is_rarely_pruned():
    """The error rate that the test promises, over many noisy pairs; on the edge of the tolerance."""
    draw, pruned = random.Random(0), 0
    for _ in range(300):
        study = study_with([draw.lognormvariate(0.0, 0.03) for _ in range(5)])
        for _ in range(3):  # the noise is pooled over all trials
            finished(study, [0.5 * draw.lognormvariate(0.0, 0.03) for _ in range(5)])
        pruned += would_prune(study, [0.99 * draw.lognormvariate(0.0, 0.03) for _ in range(2)], LEAST_STEPS) is not None
    assert pruned <= 300 * 3 * DOUBT
