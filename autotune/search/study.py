"""The Optuna study behind a search: a SQLite file that optuna-dashboard opens and a later run resumes."""

import json
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from autotune.errors import InputError
from autotune.pipeline.outcome import Failure, Measurement
from autotune.predict.record import Candidate

Key = tuple[int, str]
"""What names a candidate inside a study: number of micro-batches, schedule."""


class ClearlyWorsePruner(BasePruner):
    """Ends a trial whose best step so far is worse than the worst step of the best finished trial.

    Two complete separations by chance are rare with noisy steps, and a rule without a distribution needs no warm-up
    statistics: two steps each are enough.
    """

    def prune(self, study: "optuna.study.Study", trial: FrozenTrial) -> bool:
        mine = list(trial.intermediate_values.values())
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(mine) < 2 or not finished:
            return False
        best = max(finished, key=lambda other: other.value or 0.0)
        theirs = list(best.intermediate_values.values())
        return len(theirs) >= 2 and max(mine) < min(theirs)


class Study:
    """Trials of one workload on one machine; every finished candidate is kept with its raw samples."""

    def __init__(self, state_dir: Path, name: str, candidates: list[Candidate], fresh: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = state_dir / "study.db"
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            if fresh and name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=name, storage=storage)
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=ClearlyWorsePruner(),
                sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: every trial is enqueued with its values
            )
        except Exception as error:
            first_line = str(error).splitlines()[0]
            raise InputError(f"cannot open the study {path}: {first_line}; remove it or give --state-dir") from None
        self._space: dict[str, Any] = {
            "micro_batches": CategoricalDistribution(sorted({c.micro_batches for c in candidates})),
            "schedule": CategoricalDistribution(sorted({c.schedule for c in candidates})),
        }
        for unfinished in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            self._study.tell(unfinished.number, state=TrialState.FAIL)  # an earlier run was killed in it

    def finished(self) -> dict[Key, Measurement | Failure]:
        """The outcome of every candidate that an earlier run of this study measured."""
        found: dict[Key, Measurement | Failure] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.params:
                continue
            key = (trial.params["micro_batches"], trial.params["schedule"])
            if "measurement" in trial.user_attrs:
                found[key] = Measurement.model_validate_json(json.dumps(trial.user_attrs["measurement"]))
            elif "failure" in trial.user_attrs:
                found[key] = Failure.model_validate_json(json.dumps(trial.user_attrs["failure"]))
        for attribute, value in self._study.user_attrs.items():
            if attribute.startswith("final m="):
                again = Measurement.model_validate_json(json.dumps(value["measurement"]))
                found[value["micro_batches"], value["schedule"]] = again
        return found

    def begin(self, candidate: Candidate) -> "optuna.trial.Trial":
        """A new trial of exactly this candidate."""
        self._study.enqueue_trial({"micro_batches": candidate.micro_batches, "schedule": candidate.schedule})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(self._space)
        trial.set_user_attr("micro_batch_size", candidate.micro_batch_size)
        return trial

    def finish(self, trial: "optuna.trial.Trial", outcome: Measurement | Failure) -> None:
        """Stores the outcome: complete, pruned or failed."""
        if isinstance(outcome, Failure):
            trial.set_user_attr("failure", outcome.model_dump(mode="json"))
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("measurement", outcome.model_dump(mode="json"))
        if outcome.pruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, outcome.throughput_seq_s)

    def settle(self, candidate: Candidate, measurement: Measurement) -> None:
        """Stores the samples of a finalist with those of the final added; Optuna's finished trials do not change."""
        self._study.set_user_attr(
            f"final m={candidate.micro_batches} {candidate.schedule}",
            {
                "micro_batches": candidate.micro_batches,
                "schedule": candidate.schedule,
                "measurement": measurement.model_dump(mode="json"),
            },
        )

    @property
    def is_settled(self) -> bool:
        """Whether a final has been held."""
        return any(attribute.startswith("final m=") for attribute in self._study.user_attrs)
