"""The Optuna study behind a search: a SQLite file that optuna-dashboard opens and a later run resumes. (One that
several controllers share is in ``search.shared``.)

::

    study "48 layers, 4 stages, batch 64, cpu [5f0c…]"
      user attributes   identity                 what the figures depend on, as a user would say it
                        visit 0007               a visit after the trials: the reference again, or the final
                        pace from visit 0007     the machine's pace changed
                        judged                   the last visit of a trial for which that was decided
                        final                    how the final ended, and between whom
      trial             micro_batches, schedule, virtual_stages; each timed step as an intermediate value
      its constraint    memory over the limit (GiB); above 0: does not fit, or ran out of memory
      its attributes    visit, measurement or failure, memory_limit_bytes

Values are sequences per second at the pace that the machine had at first. SQLite commits each of them, so a process may
be killed at any moment. The measurement is written last: a trial that has one is as good as complete, and whoever finds
it running may complete it.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autotune.errors import InputError
from autotune.outcome import Failure, Measurement
from autotune.predict.record import Candidate
from autotune.records import changed
from autotune.search.prospects import Goal
from autotune.search.pruner import WorseBeyondDoubtPruner
from autotune.search.space import DIMENSIONS, Key, Space, key_of, params_of, show
from autotune.search.trouble import trouble_with
from autotune.search.visits import PaceChange, Visit, Visits

if TYPE_CHECKING:
    from autotune.search.sampler import WholeCandidateSampler

CONSTRAINT = "memory over the limit (GiB)"
METRIC = "throughput (sequences/s)"
Identity = Mapping[str, Mapping[str, Any]]
"""What figures depend on: {"workload": {...}, "environment": {...}, "search": {...}}."""


def load_storage() -> None:
    """Loads the libraries that a study is kept with, which Optuna would do when one is opened."""
    RDBStorage("sqlite:///:memory:")


class Study:
    """Trials of one workload on one machine; every finished candidate is kept with its raw samples.

    ``where``: the storage as it may be shown. ``controller``: who we are, where several share the study.
    """

    controller = ""

    def __init__(
        self, state_dir: Path, name: str, candidates: list[Candidate], fresh: bool, identity: Identity | None = None
    ) -> None:
        path = state_dir / "study.db"
        self.where = str(path)
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open(RDBStorage(f"sqlite:///{path}"), name, candidates, fresh, identity or {})
        except Exception as error:
            raise InputError(trouble_with(path, error, "open")) from None

    def _open(
        self, storage: RDBStorage, name: str, candidates: list[Candidate], fresh: bool, identity: Identity
    ) -> None:
        """Continues the study of that name, or begins it."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.candidates = Space(candidates), candidates
        self._indices = {key_of(candidate): index for index, candidate in enumerate(candidates)}
        self.differs_from_earlier: dict[str, list[str]] = {}
        known = optuna.get_all_study_names(storage)
        if fresh and name in known:
            self._delete(storage, name)
        if name not in known:
            self.differs_from_earlier = differences(storage, identity)
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=WorseBeyondDoubtPruner(),
        )
        self._name_it(identity)
        self.recover()

    def _delete(self, storage: RDBStorage, name: str) -> None:
        """Removes the study with all that was measured."""
        optuna.delete_study(study_name=name, storage=storage)

    def trouble(self, error: Exception) -> str | None:
        """What is wrong with the storage and what to do, where that is what ``error`` says."""
        return None if isinstance(error, KeyError) else trouble_with(Path(self.where), error, "write")

    def running_elsewhere(self) -> set[int]:
        """The candidates that other controllers are running now."""
        return set()

    def close(self) -> None:
        """After the search, however it ended."""

    def _name_it(self, identity: Identity) -> None:
        """Says in the study itself what it is about."""
        if "identity" in self._study.user_attrs:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names([METRIC])
        self._study.set_user_attr("identity", identity)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def recover(self) -> None:
        """Ends the trials that an earlier run was killed in; one whose measurement is there is finished."""
        for trial in self._running():
            if "measurement" in trial.user_attrs:
                self._study.tell(trial.number, trial.user_attrs["rate"])
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def use(self, sampler: "WholeCandidateSampler", tolerance: float) -> None:
        """Sets who proposes candidates, and within what of the best they are worth their steps."""
        self._study.sampler = self._sampler = sampler
        self._study.pruner = WorseBeyondDoubtPruner(tolerance)

    def _index(self, trial: FrozenTrial) -> int | None:
        """The trial's candidate, where it is among this run's."""
        key: Key = tuple(trial.params.get(dimension.name, "") for dimension in DIMENSIONS)
        return self._indices.get(key)

    def _trials(self) -> Iterator[tuple[int, FrozenTrial]]:
        """Every trial of a candidate that is among this run's, with the candidate's index."""
        for trial in self._study.get_trials(deepcopy=False):
            index = self._index(trial)
            if index is not None:
                yield index, trial

    def finished(self, memory_limit: int | None = None) -> dict[int, Measurement | Failure]:
        """The outcome of every candidate that an earlier run of this study finished, or another controller.

        What ran out of memory under a lower limit than now does not count; nor does a rank that died or hung, which may
        not have been the candidate's fault, before it has happened twice.
        """
        found: dict[int, Measurement | Failure] = {}
        deaths: dict[int, int] = {}
        for index, trial in self._trials():
            stored = trial.user_attrs
            if trial.state == TrialState.COMPLETE:
                found[index] = Measurement.model_validate_json(json.dumps(stored["measurement"]))
            elif "failure" in stored:
                failure = Failure.model_validate_json(json.dumps(stored["failure"]))
                limit = stored.get("memory_limit_bytes")
                deaths[index] = deaths.get(index, 0) + (failure.kind in ("crash", "hang"))
                is_over = not limit or not memory_limit or memory_limit <= limit
                if is_over if failure.kind == "out_of_memory" else deaths[index] != 1:
                    found[index] = failure
        return found

    def visits(self) -> Visits:
        """Every visit that is stored, and every change of pace."""
        found, numbers = Visits(controller=self.controller), [-1]

        def note(number: int, controller: str, index: int | None, step_times_s: Sequence[float]) -> None:
            is_own = controller == self.controller
            numbers.append(number if is_own else -1)
            if index is not None:
                found.all.append(Visit(number, index, tuple(step_times_s), is_earlier=is_own, controller=controller))

        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            stored = trial.user_attrs
            times = stored["measurement"]["step_times_s"]
            note(stored["visit"], stored.get("controller", ""), self._index(trial), times)
        last = max(found.own, key=lambda visit: visit.number, default=None)
        if last is not None and last.number > self._study.user_attrs.get("judged", -1):
            found.unjudged = last
        for attribute, value in self._study.user_attrs.items():
            if match := re.fullmatch(r"(visit|pace from visit) (\d+) ?(\w*)", attribute):
                what, number, controller = match.groups()
                if what == "visit":
                    key: Key = tuple(value["candidate"][dimension.name] for dimension in DIMENSIONS)
                    note(int(number), controller, self._indices.get(key), value["step_times_s"])
                else:
                    found.changes.append(PaceChange(int(number), value, controller))
        found.all.sort(key=lambda visit: visit.number)
        found.changes.sort(key=lambda change: change.visit)
        found.next_number = max(numbers) + 1
        return found

    def begin(
        self, candidate: Candidate | None, memory_limit: int | None = None
    ) -> tuple[int, "optuna.trial.Trial"] | None:
        """A new trial, of exactly this candidate or of the one that the sampler proposes; with its index. None where
        another controller was faster to claim the candidate; the limit decides whether a failure there still holds."""
        self._sampler.wanted = candidate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(self.space.distributions)
        index = self._indices[tuple(trial.params[dimension.name] for dimension in DIMENSIONS)]
        trial.set_user_attr("micro_batch_size", self.candidates[index].micro_batch_size)
        return index, trial

    def note_step(self, trial: "optuna.trial.Trial", rate: float, number: int) -> bool:
        """Stores a timed step of a running trial; returns whether the trial is still ours."""
        trial.report(rate, number)
        return True

    def finish(
        self,
        trial: "optuna.trial.Trial",
        outcome: Measurement | Failure,
        visit: int,
        rate: float,
        over_limit: int | None,
        memory_limit: int | None,
    ) -> bool:
        """Stores the outcome; returns False where the trial had been taken from us.

        A trial that the pruner ended is complete: steps are repetitions, so two of them are a measurement too, and
        Optuna's Gaussian process learns from complete trials only. What ran out of memory is pruned, with its
        constraint violated; TPE learns from that, and from trials that failed nobody does. ``over_limit``: bytes that
        the candidate needs beyond the limit, None where it is not known.
        """
        trial.set_constraint(CONSTRAINT, (over_limit or 0) / 2**30)
        trial.set_user_attr("memory_limit_bytes", memory_limit)
        if isinstance(outcome, Failure):
            trial.set_user_attr("failure", outcome.model_dump(mode="json"))
            ran_out = outcome.kind == "out_of_memory"
            self._study.tell(trial, state=TrialState.PRUNED if ran_out else TrialState.FAIL)
            return True
        trial.set_user_attr("visit", visit)
        trial.set_user_attr("rate", rate)
        trial.set_user_attr("measurement", outcome.model_dump(mode="json"))
        self._study.tell(trial, rate)
        return True

    def _signed(self, what: str, number: int) -> str:
        """``visit 0007``; with the controller's name where several share the study."""
        return f"{what} {number:04d} {self.controller}".rstrip()

    def keep_visit(self, visit: Visit) -> None:
        """Stores a visit that is no trial: Optuna's finished trials do not change."""
        value = {"candidate": params_of(self.candidates[visit.index]), "step_times_s": visit.step_times_s}
        self._study.set_user_attr(self._signed("visit", visit.number), value)

    def keep_change(self, change: PaceChange) -> None:
        """Stores a change of the machine's pace."""
        self._study.set_user_attr(self._signed("pace from visit", change.visit), change.pace)

    def keep_judged(self, visit: Visit) -> None:
        """Stores that the pace of the machine was decided up to the visit of this trial."""
        self._study.set_user_attr("judged", visit.number)

    def keep_final(self, words: str, between: Iterable[int], goal: Goal) -> None:
        """Stores how the final ended, between which candidates that ran, and for what."""
        self._study.set_user_attr("final", {"ended": words, **self._contest(between, goal)})

    def final(self, between: Iterable[int], goal: Goal) -> str | None:
        """How the final between these candidates ended; None before it was held."""
        stored = dict(self._study.user_attrs.get("final", {}))
        ended: str | None = stored.pop("ended", None)
        return ended if stored == self._contest(between, goal) else None

    def _contest(self, between: Iterable[int], goal: Goal) -> dict[str, Any]:
        names = sorted(show(self.candidates[index]) for index in between)
        return {"between": names, "objective": goal.objective, "tolerance": goal.tolerance}


def differences(storage: Any, identity: Identity) -> dict[str, list[str]]:
    """What tells this study from the one of the same file that is most like it, by part of the identity:
    ``{"environment": ["torch_version was 2.12.0, is 2.13.0"]}``. Empty where there is no other study.
    """
    others: list[dict[str, list[str]]] = []
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        if theirs := summary.user_attrs.get("identity"):
            found = {part: changed(theirs.get(part, {}), mine) for part, mine in as_json(identity).items()}
            others.append({part: texts for part, texts in found.items() if texts})
    return min(others, key=lambda parts: ("workload" in parts, sum(map(len, parts.values()))), default={})


def as_json(identity: Identity) -> Identity:
    """As it comes back from the storage, tuples as lists."""
    values: Identity = json.loads(json.dumps(identity))
    return values
