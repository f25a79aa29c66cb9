"""A study in a database that several controllers share, each with ranks of its own.

Besides what every study holds (``search.study``) a trial here has the attribute ``controller``; the names of later
timings end with it.

*Who runs what.* A controller claims a candidate by a trial: it begins one, writes the candidate into it, and then looks
at the trials with lower numbers. The claim holds unless one of those holds the same candidate: is running it, or has
ended in a way that counts. Then ours is ended at once, and the search chooses again. One that is running but does not
say yet what is waited for until it does or is dead. So no candidate is measured twice::

    i < j of one candidate, both measured. Optuna numbers trials inside a transaction that locks the study, so when j
    looked, i was there. Then i was running, and j gave way; or it was measured, and j gave way; or it had failed, and
    a trial leaves the state "running" only once, under a lock of its row, so that it never was measured. None is so.

Nobody waits in a circle: only for lower numbers while it has a trial of its own, and for anyone while it has none.

*Who is alive.* A controller gives signs of life (heartbeats, by the clock of the database) for the trial that it runs.
After SILENT of them are missing, any other may end the trial, and its candidate is free again. A controller that was
only asleep finds at its next write that the trial is no longer its own. What counts as measured is the state COMPLETE
alone, which only a running trial can reach. A kill can come between the measurement and that state: whoever finds a
running trial with a measurement completes it.
"""

import math
import secrets
import time
import warnings
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from autotune.disk import refusal
from autotune.errors import AutotuneError, InputError, UsageError
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate
from autotune.search.space import DIMENSIONS
from autotune.search.study.study import Identity, Study
from autotune.search.timing import Timing
from autotune.storage_url import parse, scrubbed, shown

if TYPE_CHECKING:
    from optuna.trial import Trial

SILENT = 3  # missing signs of life that count as death
POLL_S = 0.1
CONNECT_S, BUSY_S = 10, 60  # for a server to answer, for another's transaction on an SQLite file to end
REMOVED = "Record does not exist."  # Optuna's KeyError
ATTEMPTS = 5  # at making the tables: of two controllers that do so at once, one is told that they are there
BEGIN = {
    "sqlite": "BEGIN IMMEDIATE",  # which locks for reading too; SQLite knows no lock of a row
    "postgresql": "SET LOCAL TIME ZONE 'UTC'",  # Optuna stores heartbeats without a zone
}


def open_storage(address: str, heartbeat_s: float) -> RDBStorage:
    """Connect to the database, and make Optuna's tables where there are none."""
    for category, message in ((ExperimentalWarning, ""), (UserWarning, "Heartbeat of storage is supposed")):
        warnings.filterwarnings("ignore", message, category)  # once and for all: to set it back is not safe in threads
    url = parse(address)
    kind = url.get_backend_name()
    options: dict[str, object] = {}
    if kind == "sqlite":
        options = {"isolation_level": None, "timeout": BUSY_S}  # transactions begin as in BEGIN
    elif kind == "postgresql" and "connect_timeout" not in url.query:
        options = {"connect_timeout": CONNECT_S}
    text = url.render_as_string(hide_password=False)
    for attempt in range(ATTEMPTS):
        try:
            storage = RDBStorage(
                text.replace("{", "{{").replace("}", "}}"),  # Optuna takes braces for a template
                engine_kwargs={"connect_args": options, "pool_pre_ping": True},
                heartbeat_interval=1,  # turns Optuna's own watch on; the signs are given by Pulse
                grace_period=math.ceil(SILENT * heartbeat_s),
            )
            break
        except (SQLAlchemyError, StorageInternalError) as error:
            is_unreachable = kind != "sqlite" and isinstance(error, sqlalchemy.exc.OperationalError)
            if is_unreachable or attempt == ATTEMPTS - 1:
                raise
            time.sleep(POLL_S)
    if kind in BEGIN:
        sqlalchemy.event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql(BEGIN[kind]))
    return storage


def explain(error: Exception, address: str) -> str:
    """Return what is wrong, in a line without credentials: of a file, what its file system says of it."""
    url = parse(address)
    if url.get_backend_name() == "sqlite" and (refused := refusal(Path(str(url.database)).parent)):
        return f"{refused.strerror} in {Path(str(url.database)).parent}"
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, DBAPIError) and cause.orig:
        cause = cause.orig
    return scrubbed((str(cause).strip().splitlines() or [type(cause).__name__])[0], address)


def not_opened(address: str, error: Exception) -> InputError:
    """Return why a study cannot be opened: no such server, it lets nobody in, or what it holds is no study."""
    return InputError(f"cannot open the study in {shown(address)}: {explain(error, address)}; check --storage")


def check_storage(address: str) -> None:
    """Raise InputError where the database cannot be used, before anything is measured."""
    try:
        open_storage(address, 1.0).engine.dispose()
    except Exception as error:
        raise not_opened(address, error) from None


class Pulse:
    """Gives signs of life for the trial ``trial_id``, from a thread of its own, until it is stopped."""

    def __init__(self, storage: RDBStorage, every_s: float) -> None:
        self.trial_id: int | None = None
        self._storage, self._every_s, self._stopped = storage, every_s, Event()
        self._thread = Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(self._every_s):
            trial_id = self.trial_id
            if trial_id is not None:
                with suppress(SQLAlchemyError, StorageInternalError):  # the search itself will meet it, and say so
                    self._storage.record_heartbeat(trial_id)
        self._storage.remove_session()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(CONNECT_S)


class SharedStudy(Study):
    """The study in the database at ``address``, opened for one of its controllers."""

    def __init__(
        self,
        address: str,
        heartbeat_s: float,
        name: str,
        candidates: list[Candidate],
        fresh: bool,
        identity: Identity | None = None,
    ) -> None:
        self.controller = secrets.token_hex(4)
        self.where, self._address = shown(address), address
        self._seen: set[int] = set()
        try:
            self._storage = open_storage(address, heartbeat_s)
            self._open(self._storage, name, candidates, fresh, identity or {})
        except AutotuneError:
            raise
        except Exception as error:
            raise not_opened(address, error) from None
        self._pulse = Pulse(self._storage, heartbeat_s)

    def _delete(self, storage: BaseStorage, name: str) -> None:
        self._study = optuna.load_study(study_name=name, storage=storage)
        self.recover()
        if self._running():
            raise UsageError(
                f"--fresh: another controller is working on this study in {self.where}; wait for it to end, or run"
                " without --fresh"
            )
        super()._delete(storage, name)

    def recover(self) -> None:
        """Complete trials whose measurement is there, and end those of controllers that give no sign of life."""
        for trial in self._running():
            if "measurement" in trial.user_attrs:
                with suppress(UpdateFinishedTrialError):  # another was faster
                    self._storage.set_trial_state_values(
                        trial._trial_id, TrialState.COMPLETE, [trial.user_attrs["rate"]]
                    )
        optuna.storages.fail_stale_trials(self._study)
        for trial in self._running():
            if trial._trial_id not in self._seen:
                # Its controller may have been killed before it gave the first sign, and Optuna waits for a first one.
                self._seen.add(trial._trial_id)
                self._storage.record_heartbeat(trial._trial_id)

    def begin(self, candidate: Candidate | None, memory_limit: int | None = None) -> tuple[Candidate, "Trial"] | None:
        with suppress(UpdateFinishedTrialError):  # we were asleep, and others took us for dead
            begun = super().begin(candidate)
            assert begun is not None
            found, trial = begun
            self._pulse.trial_id = trial._trial_id
            self._storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr("controller", self.controller)
            if self._is_claimed(found, trial.number, memory_limit):
                return begun
            trial.set_user_attr("gave way", True)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        self._pulse.trial_id = None
        return None

    def _is_claimed(self, candidate: Candidate, number: int, memory_limit: int | None) -> bool:
        """True when our trial holds the candidate; see the top of this file."""
        while True:
            self.recover()
            lower = [trial for trial in self._running() if trial.number < number]  # before what has ended: see catch_up
            if candidate in self.finished(memory_limit) or any(self._candidate(trial) == candidate for trial in lower):
                return False
            if all(len(trial.params) == len(DIMENSIONS) for trial in lower):
                return True
            time.sleep(POLL_S)

    def running_elsewhere(self) -> set[Candidate]:
        """Return the candidates that other controllers are running now."""
        found = {self._candidate(trial) for trial in self._running() if trial._trial_id != self._pulse.trial_id}
        return {candidate for candidate in found if candidate is not None}

    def note_step(self, trial: "Trial", rate: float, number: int) -> bool:
        try:
            return super().note_step(trial, rate, number)
        except UpdateFinishedTrialError:
            return False

    def finish(
        self,
        trial: "Trial",
        outcome: Measurement | Failure,
        timing: Timing | None,
        over_limit: int | None,
        memory_limit: int | None,
    ) -> bool:
        try:
            super().finish(trial, outcome, timing, over_limit, memory_limit)
        except (UpdateFinishedTrialError, ValueError):
            state = self._study.get_trials(deepcopy=False)[trial.number].state
            if not state.is_finished():
                raise
            return state == TrialState.COMPLETE  # by another, after we had written the measurement
        finally:
            self._pulse.trial_id = None
        return True

    def trouble(self, error: Exception) -> str | None:
        if isinstance(error, KeyError):
            is_gone = error.args == (REMOVED,)
            return (
                f"another controller has removed the study in {self.where}, with --fresh; run again"
                if is_gone
                else None
            )
        return f"the study in {self.where} is out of reach: {explain(error, self._address)}; run again when it is back"

    def close(self) -> None:
        """Hand on a trial that did not end, so that nobody need wait for our death to show."""
        trial_id, self._pulse.trial_id = self._pulse.trial_id, None
        self._pulse.stop()
        if trial_id is not None:
            with suppress(SQLAlchemyError, StorageInternalError, UpdateFinishedTrialError, KeyError):
                self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self._storage.engine.dispose()
