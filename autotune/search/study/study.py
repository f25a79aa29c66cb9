"""The Optuna study behind a search: a SQLite file that optuna-dashboard opens and a later run resumes. (One that
several controllers share is in ``search.shared``.)

::

    study "48 layers, 4 stages, batch 64, cpu [5f0c…]"
      user attributes   identity                 what the figures depend on, as a user would say it
                        timing 0007              a later visit to a candidate that had its trial
      trial             micro_batches, schedule, virtual_stages; each timed step as an intermediate value
      its constraint    memory over the limit (GiB); above 0: does not fit, or ran out of memory
      its attributes    visit (its number), timing (when: see ``search.timing``), measurement or failure,
                        memory_limit_bytes

Values are sequences per second as they were timed. SQLite commits each of them, so a process may be killed at any
moment. The measurement is written last: a trial that has one is as good as complete, and whoever finds it running may
complete it. Studies of earlier versions call a later visit ``visit 0007`` and do not say when it was; what they say of
the machine's speed is not read, because the belief finds that in the timings.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autotune.errors import InputError
from autotune.identity import Facts, changed
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.plain import decode
from autotune.records.prediction import Candidate
from autotune.search.space import DIMENSIONS, Key, Space, key_of, params_of
from autotune.search.study.trouble import trouble_with
from autotune.search.timing import Timing

if TYPE_CHECKING:
    from autotune.search.study.sampler import WholeCandidateSampler

CONSTRAINT = "memory over the limit (GiB)"
METRIC = "throughput (sequences/s)"
TIMING = re.compile(r"(?:timing|visit) (\d+) ?(\w*)")
Identity = Mapping[str, Facts]
"""The ``parts`` of a ``StudyIdentity``."""


def load_storage() -> None:
    """Load the libraries that a study is kept with, which Optuna would do when one is opened."""
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
        self, storage: BaseStorage, name: str, candidates: list[Candidate], fresh: bool, identity: Identity
    ) -> None:
        """Continue the study of that name, or begin it."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.candidates = Space(candidates), candidates
        self._of_key = {key_of(candidate): candidate for candidate in candidates}
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
            pruner=optuna.pruners.NopPruner(),  # the belief says when a trial has shown enough
        )
        self._name_it(identity)
        self.recover()

    def _delete(self, storage: BaseStorage, name: str) -> None:
        """Remove the study with all that was measured."""
        optuna.delete_study(study_name=name, storage=storage)

    def trouble(self, error: Exception) -> str | None:
        """Return what is wrong with the storage and what to do, where that is what ``error`` says."""
        return None if isinstance(error, KeyError) else trouble_with(Path(self.where), error, "write")

    def running_elsewhere(self) -> set[Candidate]:
        """Return the candidates that other controllers are running now."""
        return set()

    def close(self) -> None:
        """Close the storage after the search, however it ended."""

    def _name_it(self, identity: Identity) -> None:
        """Say in the study itself what it is about."""
        if "identity" in self._study.user_attrs:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names([METRIC])
        self._study.set_user_attr("identity", identity)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def recover(self) -> None:
        """End the trials that an earlier run was killed in; one whose measurement is there is finished."""
        for trial in self._running():
            if "measurement" in trial.user_attrs:
                self._study.tell(trial.number, trial.user_attrs["rate"])
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def use(self, sampler: "WholeCandidateSampler") -> None:
        """Set who proposes candidates."""
        self._study.sampler = self._sampler = sampler

    def _candidate(self, trial: FrozenTrial) -> Candidate | None:
        """The trial's candidate, where it is among this run's."""
        key: Key = tuple(trial.params.get(dimension.name, dimension.usual) for dimension in DIMENSIONS)
        return self._of_key.get(key)

    def _trials(self) -> Iterator[tuple[Candidate, FrozenTrial]]:
        """Every trial of a candidate that is among this run's."""
        for trial in self._study.get_trials(deepcopy=False):
            candidate = self._candidate(trial)
            if candidate is not None:
                yield candidate, trial

    def finished(self, memory_limit: int | None = None) -> dict[Candidate, Measurement | Failure]:
        """Return the outcome of every candidate that an earlier run of this study finished, or another controller.

        What ran out of memory under a lower limit than now does not count; nor does a rank that died or hung, which may
        not have been the candidate's fault, before it has happened twice.
        """
        found: dict[Candidate, Measurement | Failure] = {}
        deaths: dict[Candidate, int] = {}
        for candidate, trial in self._trials():
            stored = trial.user_attrs
            if trial.state == TrialState.COMPLETE:
                found[candidate] = Measurement.model_validate_json(json.dumps(stored["measurement"]))
            elif "failure" in stored:
                failure = decode(Failure, stored["failure"])
                limit = stored.get("memory_limit_bytes")
                deaths[candidate] = deaths.get(candidate, 0) + (failure.kind in ("crash", "hang"))
                is_over = not limit or not memory_limit or memory_limit <= limit
                if is_over if failure.kind == "out_of_memory" else deaths[candidate] != 1:
                    found[candidate] = failure
        return found

    def timings(self) -> list[Timing]:
        """Return every visit that is stored, of this run's candidates, in the order of time."""
        found: list[Timing] = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            stored = trial.user_attrs
            found += self._timing(
                self._candidate(trial),
                stored.get("timing", {}) | {"step_times_s": stored["measurement"]["step_times_s"]},
                int(stored["visit"]),
                stored.get("controller", ""),
            )
        for attribute, value in self._study.user_attrs.items():
            if match := TIMING.fullmatch(attribute):
                key: Key = tuple(value["candidate"].get(dimension.name, dimension.usual) for dimension in DIMENSIONS)
                found += self._timing(self._of_key.get(key), value, int(match[1]), match[2])
        return sorted(found, key=lambda timing: (timing.at_s, timing.number))

    def _timing(
        self, candidate: Candidate | None, stored: Mapping[str, Any], number: int, machine: str
    ) -> Iterator[Timing]:
        """The timing of a visit, None where it is of no candidate of this run. Where an earlier version did not say
        when, visits lie as far apart as a usual one takes, long ago."""
        if candidate is not None:
            steps = tuple(stored["step_times_s"])
            yield Timing(
                number=number,
                candidate=candidate,
                step_times_s=steps,
                at_s=stored.get("at_s", number * 3 * steps[0]),
                machine=machine,
                session=stored.get("session", 0),
                ready_s=stored.get("ready_s", 0.0),
            )

    def begin(
        self, candidate: Candidate | None, memory_limit: int | None = None
    ) -> tuple[Candidate, "optuna.trial.Trial"] | None:
        """Begin a trial, of exactly this candidate or of the one that the sampler proposes; return both. None where
        another controller was faster to claim the candidate; the limit decides whether a failure there still holds."""
        self._sampler.wanted = candidate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(self.space.distributions)
        found = self._of_key[tuple(trial.params[dimension.name] for dimension in DIMENSIONS)]
        trial.set_user_attr("micro_batch_size", found.micro_batch_size)
        return found, trial

    def note_step(self, trial: "optuna.trial.Trial", rate: float, number: int) -> bool:
        """Store a timed step of a running trial; return whether the trial is still ours."""
        trial.report(rate, number)
        return True

    def finish(
        self,
        trial: "optuna.trial.Trial",
        outcome: Measurement | Failure,
        timing: Timing | None,
        over_limit: int | None,
        memory_limit: int | None,
    ) -> bool:
        """Store the outcome, and the ``timing`` of one that ran; return False where the trial had been taken from us.

        A trial that was stopped early is complete: steps are repetitions, so one of them is a measurement too, and
        Optuna's Gaussian process learns from complete trials only. What ran out of memory is pruned, with its
        constraint violated; TPE learns from that, and from trials that failed nobody does. ``over_limit``: bytes that
        the candidate needs beyond the limit, None where it is not known.
        """
        trial.set_constraint(CONSTRAINT, (over_limit or 0) / 2**30)
        trial.set_user_attr("memory_limit_bytes", memory_limit)
        if isinstance(outcome, Failure):
            trial.set_user_attr("failure", asdict(outcome))
            ran_out = outcome.kind == "out_of_memory"
            self._study.tell(trial, state=TrialState.PRUNED if ran_out else TrialState.FAIL)
            return True
        assert timing is not None, "what ran was timed"
        trial.set_user_attr("timing", self._stored(timing))
        trial.set_user_attr("visit", timing.number)
        trial.set_user_attr("rate", outcome.throughput_seq_s)
        trial.set_user_attr("measurement", outcome.model_dump(mode="json"))
        self._study.tell(trial, outcome.throughput_seq_s)
        return True

    def keep(self, timing: Timing) -> None:
        """Store a visit that is no trial: Optuna's finished trials do not change."""
        name = f"timing {timing.number:04d} {self.controller}".rstrip()
        steps = {"candidate": params_of(timing.candidate), "step_times_s": timing.step_times_s}
        self._study.set_user_attr(name, steps | self._stored(timing))

    def _stored(self, timing: Timing) -> dict[str, Any]:
        """The moment of a visit, as it is stored; its steps are stored with the measurement of a trial."""
        return {name: value for name, value in asdict(timing).items() if name in ("at_s", "session", "ready_s")}


class MemoryStudy(Study):
    """A study that nothing is written of: of a search on a simulated machine."""

    def __init__(self, candidates: list[Candidate], storage: BaseStorage | None = None) -> None:
        self.where = "memory"
        self.storage = storage or InMemoryStorage()
        self._open(self.storage, "simulated", candidates, False, {})


def differences(storage: Any, identity: Identity) -> dict[str, list[str]]:
    """Return what tells this study from the one of the same file that is most like it, by part of the identity:
    ``{"environment": ["torch_version was 2.12.0, is 2.13.0"]}``. Empty where there is no other study."""
    others: list[dict[str, list[str]]] = []
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        if theirs := summary.user_attrs.get("identity"):
            found = {part: changed(theirs.get(part, {}), mine) for part, mine in as_json(identity).items()}
            others.append({part: texts for part, texts in found.items() if texts})
    return min(others, key=lambda parts: ("workload" in parts, sum(map(len, parts.values()))), default={})


def as_json(identity: Identity) -> Identity:
    """Return a value as it comes back from the storage, tuples as lists."""
    values: Identity = json.loads(json.dumps(identity))
    return values
