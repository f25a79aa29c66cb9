"""The controller's side of the ranks: start them, ask all of them one thing, find out who died, replace them.

::

    controller --pipe----------------------> rank 0 --gloo or NCCL--> rank 1 --> ...     all on this host
    controller --TCP--> worker --pipe------> rank 0 --gloo or NCCL--> rank 1 --> ...     on the hosts of workers
"""

import sys
import time
from collections.abc import Callable, Sequence
from math import inf
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from autotune.pipeline.control.commands import Command, Reply
from autotune.pipeline.control.diagnose import diagnose_timeout
from autotune.pipeline.control.process import LocalRank, Run, make_folder, remove_folder
from autotune.pipeline.control.server import server
from autotune.pipeline.hosts.remote import LOST_S
from autotune.pipeline.hosts.rendezvous import Rendezvous
from autotune.pipeline.hosts.wire import Assignment, ProcessStatus
from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.records.plain import encode, read

T = TypeVar("T")
START_TIMEOUT_S = 120.0
GRACE_S = 1.0  # how long the others may take to answer once one rank has failed
CORE_DUMP_S = 3.0  # how long a rank may take to die after its neighbours have lost it
STATUS_S = 1.0  # between two checks of silent ranks
STOPPED_CHECKS = 5  # in which a rank is found stopped before it is given up
BUSY = 0.02  # of a core; less by all ranks together is idleness
SUSPECT_S = 4.0  # without a heartbeat of a host, when its ranks are idle as well


class HangDetector:
    """Tells when silent ranks hang: one of them has been stopped for a while, or none has used the CPU for
    ``idle_s``."""

    def __init__(self, idle_s: float) -> None:
        self.idle_s, self.stopped = idle_s, 0
        self.used_s, self.worked = 0.0, time.monotonic()  # CPU time by then, and when that had last changed
        self.checked = time.monotonic()

    @property
    def is_due(self) -> bool:
        """True when it is time to check them again."""
        return time.monotonic() - self.checked >= STATUS_S

    def is_hung(self, statuses: Sequence[ProcessStatus]) -> bool:
        """Return whether the ranks of these ``statuses`` hang; to be called every STATUS_S."""
        self.stopped = self.stopped + 1 if any(status.is_stopped for status in statuses) else 0
        used_s, now = sum(status.cpu_s for status in statuses), time.monotonic()
        self.checked = now
        if used_s - self.used_s > BUSY * (now - self.worked):
            self.used_s, self.worked = used_s, now
        return self.stopped >= STOPPED_CHECKS or now - self.worked > self.idle_s


class RankFailure(Exception):
    """A command that some rank did not carry out; the ranks must be replaced before the next one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class RankHandle(Protocol):
    """The controller's handle of a rank: a process of this host, or a connection to the host where it runs."""

    assignment: Assignment
    connection: Connection
    """Ready when it has sent something."""
    is_connected: bool
    """False once the worker that keeps it has gone."""

    @property
    def is_alive(self) -> bool:
        """True while it is ready for a command."""

    def send(self, message: bytes) -> None:
        """Hand it a command; raise OSError where it has exited."""

    def hear(self) -> bytes | Failure | None:
        """Return what it says, or how it died, once ``connection`` is ready; None: nothing that is for the asker."""

    def status(self) -> ProcessStatus:
        """Return the latest known status of its process."""

    def give_up(self, after_s: float) -> Failure | None:
        """Give it up where its host has been silent for ``after_s``, and return that failure; None: it has not."""

    def diagnose_exit(self) -> Failure:
        """Describe how it exited."""

    def end(self) -> None:
        """End it, without waiting."""

    def close(self) -> None:
        """Let go of it after ``end``."""


class Ranks:
    """Live ranks. A context manager: leaving it ends every process and removes every file.

    ``ranks``: of all ``replicas`` of the pipeline together. ``memory_limit``: bytes that each of them may take.
    ``run``: what each process runs. ``rendezvous``: where the workers of other hosts come to, which then have the
    ranks; None: they all run here, under ``python``.
    """

    def __init__(
        self,
        ranks: int,
        device: str,
        run: Run | None = None,
        memory_limit: int | None = None,
        rendezvous: Rendezvous | None = None,
        python: str = sys.executable,
        replicas: int = 1,
    ) -> None:
        self.ranks, self.device, self.run, self.memory_limit = ranks, device, run, memory_limit
        self.rendezvous, self.python, self.replicas = rendezvous, python, replicas
        self._live: Sequence[RankHandle] = ()
        self._folder: Path | None = None
        self.placement: Placement | None = None  # how the model lies on the ranks now
        self.busy_s = 0.0  # seconds in which the ranks timed, measured or ran steps, not started or built

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start fresh ranks; any that still run are ended first. Raises DeviceError where a host does not come."""
        self.stop()
        if self.rendezvous is not None:
            self._live = self.rendezvous.start(self.device, self.memory_limit, self.replicas)
            return
        self._folder = make_folder(server(self.python))
        live: list[RankHandle] = []
        self._live = live
        for rank in range(self.ranks):
            assignment = Assignment(
                rank=rank,
                ranks=self.ranks,
                local_rank=rank,
                local_ranks=self.ranks,
                device=self.device,
                memory_limit=self.memory_limit,
                replicas=self.replicas,
            )
            live.append(LocalRank(assignment, self._folder, self.run, self.python))

    def stop(self) -> None:
        """End every rank and remove its files."""
        for rank in self._live:
            rank.end()
        for rank in self._live:
            rank.close()
        self._live, self.placement = (), None
        if self._folder is not None:
            remove_folder(self._folder)
            self._folder = None

    @property
    def alive(self) -> bool:
        """True while every rank is ready for a command."""
        return bool(self._live) and all(rank.is_alive for rank in self._live)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The name of each rank's host; nothing where all are on this one."""
        return self.rendezvous.hosts if self.rendezvous is not None else ()

    def ask(self, command: Command, timeout_s: float, idle_s: float = inf) -> list[Any]:
        """Send ``command`` to every rank and return their answers, by rank.

        Raises RankFailure when a rank answers with a failure, exits, is silent for ``timeout_s``, or all that are
        silent use no CPU for ``idle_s``. By then all ranks have been ended, because their neighbours may be stuck;
        ``start`` replaces them.
        """
        assert self._live, "start comes first"
        message, begun = encode(command), time.monotonic()
        replies: dict[int, Any] = {}
        failures: list[Failure] = []
        try:
            for rank in self._live:
                try:
                    rank.send(message)
                except OSError:
                    failures.append(rank.diagnose_exit())
            self._collect(replies, failures, time.monotonic() + timeout_s, idle_s)
        except BaseException:
            self.stop()
            raise
        if command.kind not in ("describe", "build"):
            self.busy_s += time.monotonic() - begun
        if failures:
            lost = [one for one in failures if one.rank is not None and not self._live[one.rank].is_connected]
            self.stop()
            raise RankFailure(root_cause(lost or failures))
        return [replies[rank] for rank in range(self.ranks)]

    def retry_lost_hosts(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; once more where a host was lost meanwhile, as often as it comes back in
        time."""
        while True:
            try:
                return work()
            except RankFailure:
                if self.rendezvous is None or self.rendezvous.is_complete:
                    raise

    def poll(self) -> None:
        """Hear workers of other hosts; to be called now and then while nothing is asked of the ranks."""
        if self.rendezvous is not None:
            self.rendezvous.accept()

    def _collect(self, replies: dict[int, Any], failures: list[Failure], deadline: float, idle_s: float) -> None:
        """Fill ``replies`` and ``failures`` until every rank has answered, died, or there is no more to wait for."""
        dead = {failure.rank for failure in failures}
        waiting = {rank.connection: number for number, rank in enumerate(self._live) if number not in dead}
        limit, detector = deadline, HangDetector(idle_s)
        while waiting:
            if failures:
                limit = min(limit, time.monotonic() + (CORE_DUMP_S if self._only_lost(failures) else GRACE_S))
            ready = wait(list(waiting), timeout=max(0.0, min(STATUS_S, limit - time.monotonic())))
            answered = [one for one in ready if self._hear(waiting[one], replies, failures)]  # type: ignore[index]
            for connection in answered:
                del waiting[connection]  # type: ignore[arg-type]
            if not answered and self._is_over(list(waiting.values()), failures, limit, detector):
                return

    def _is_over(self, silent: list[int], failures: list[Failure], limit: float, detector: HangDetector) -> bool:
        """True when silent ranks need not be waited for any longer; ``failures`` says why then."""
        is_late = time.monotonic() >= limit
        if not is_late and not detector.is_due:
            return False
        statuses = {number: self._live[number].status() for number in silent}
        is_over = detector.is_hung(list(statuses.values())) or is_late
        after_s = SUSPECT_S if is_over else LOST_S
        if lost := self._given_up(silent, after_s):
            # The last heartbeats of one host's workers did not come at the same moment.
            lost += self._given_up(silent, after_s - STATUS_S)
            failures.insert(0, min(lost, key=lambda one: one.rank or 0))
            return True
        if is_over and not failures:
            failures.append(diagnose_timeout({self._live[number].assignment: statuses[number] for number in silent}))
        return is_over

    def _given_up(self, silent: list[int], after_s: float) -> list[Failure]:
        """The failures of silent ranks whose hosts have sent nothing for ``after_s``."""
        return [lost for number in silent if (lost := self._live[number].give_up(after_s)) is not None]

    def _only_lost(self, failures: list[Failure]) -> bool:
        """True when nothing is known but that ranks, which still live, have lost a neighbour."""
        return all(one.kind == "crash" and one.rank is not None and self._live[one.rank].is_alive for one in failures)

    def _hear(self, number: int, replies: dict[int, Any], failures: list[Failure]) -> bool:
        """Take in what the rank sent; True when that ends the waiting for it."""
        said = self._live[number].hear()
        if said is None:
            return False
        if isinstance(said, Failure):
            failures.insert(0, said)  # before what the neighbours say of having lost it
            return True
        reply = read(Reply, said)
        if reply.failure is not None:
            failures.append(reply.failure)
        else:
            replies[number] = reply.value
        return True


def root_cause(failures: list[Failure]) -> Failure:
    """Return the failure that explains the others: running out of memory before an error before a death or a lost
    connection; of equals the first."""
    order = {"out_of_memory": 0, "model_error": 1, "crash": 2, "hang": 3}
    return min(failures, key=lambda failure: order[failure.kind])
