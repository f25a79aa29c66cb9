"""The controller's side of the ranks: start them, ask all of them one thing, find out who died, replace them.

::

    controller --pipe--> rank 0 --gloo or NCCL--> rank 1 --> ...
               --pipe--> rank 1                    one process per rank, forked from a server that has torch loaded
"""

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from math import inf
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

from autotune.errors import DeviceError
from autotune.pipeline.commands import Command, Cut
from autotune.pipeline.deaths import cpu_seconds, death, is_stopped, oom_kills, silence
from autotune.pipeline.outcome import Failure

Run = Callable[[int, int, str, str, Connection, int | None], None]
"""(rank, number of ranks, kind of device, folder, pipe to the controller, memory limit); ``run_rank`` is one."""

CONTEXT = multiprocessing.get_context("forkserver")
START_TIMEOUT_S = 120.0
GRACE_S = 1.0  # how long the others may take to answer once one rank has failed
CORE_DUMP_S = 3.0  # how long a rank may take to die after its neighbours have lost it
LOOK_S = 1.0  # how often silent ranks are looked at
STOPPED_LOOKS = 5  # in which a rank is found stopped before it is given up
BUSY = 0.02  # of a core; less by all ranks together is idleness


class Patience:
    """With ranks that are silent: at an end when one of them has been stopped for a while, or none has done anything
    for ``idle_s``."""

    def __init__(self, idle_s: float) -> None:
        self.idle_s, self.stopped = idle_s, 0
        self.used_s, self.looked = 0.0, time.monotonic()  # CPU time by then, and when that had last changed

    def ends(self, silent: list[int]) -> bool:
        """Called every LOOK_S."""
        self.stopped = self.stopped + 1 if any(map(is_stopped, silent)) else 0
        used_s, now = sum(map(cpu_seconds, silent)), time.monotonic()
        if used_s - self.used_s > BUSY * (now - self.looked):
            self.used_s, self.looked = used_s, now
        return self.stopped >= STOPPED_LOOKS or now - self.looked > self.idle_s


class RankFailure(Exception):
    """A command that some rank did not carry out; the ranks must be replaced before the next one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Ranks:
    """p live rank processes. A context manager: leaving it ends every process and removes every file.

    ``memory_limit``: bytes that each of them may take. ``run``: what each process runs, called as ``run_rank`` is.
    """

    def __init__(self, ranks: int, device: str, run: Run | None = None, memory_limit: int | None = None) -> None:
        self.ranks, self.device, self.run, self.memory_limit = ranks, device, run or run_rank, memory_limit
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._folder: Path | None = None
        self.cut: Cut | None = None  # how the model lies on the ranks now
        self._oom_kills: int | None = None  # in our control group when the ranks were started
        self.busy_s = 0.0  # seconds in which the ranks timed, measured or ran steps, not started or built

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts fresh ranks; any that still run are ended first."""
        self.stop()
        load_torch()
        self._oom_kills = oom_kills()
        self._folder = Path(
            tempfile.mkdtemp(prefix="ranks-", dir=util.get_temp_dir())
        )  # mode 0700: the rendezvous is the user's alone
        for rank in range(self.ranks):
            ours, theirs = CONTEXT.Pipe()
            arguments = (rank, self.ranks, self.device, str(self._folder), theirs, self.memory_limit)
            process = CONTEXT.Process(target=self.run, args=arguments, daemon=True, name=f"autotune rank {rank}")
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def stop(self) -> None:
        """Ends every rank and removes its files. Ranks hold nothing worth saving, so they are killed."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._processes, self.cut = [], [], None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def alive(self) -> bool:
        """Whether every rank is ready for a command."""
        return bool(self._processes) and all(process.is_alive() for process in self._processes)

    def ask(self, command: Command, timeout_s: float, idle_s: float = inf) -> list[Any]:
        """Sends ``command`` to every rank and returns their answers, by rank.

        Raises RankFailure when a rank answers with a failure, dies, is silent for ``timeout_s``, or all that are silent
        use no CPU for ``idle_s``; the ranks have been ended by then, for their neighbours may be stuck, and ``start``
        replaces them.
        """
        assert self._processes, "start comes first"
        message, begun = command.model_dump_json().encode(), time.monotonic()
        replies: dict[int, Any] = {}
        failures: list[Failure] = []
        try:
            for rank, pipe in enumerate(self._pipes):
                try:
                    pipe.send_bytes(message)
                except OSError:
                    failures.append(self._death(rank))
            self._collect(replies, failures, time.monotonic() + timeout_s, idle_s)
        except BaseException:
            self.stop()
            raise
        if command.kind not in ("describe", "build"):
            self.busy_s += time.monotonic() - begun
        if failures:
            self.stop()
            raise RankFailure(root_cause(failures))
        return [replies[rank] for rank in range(self.ranks)]

    def _collect(self, replies: dict[int, Any], failures: list[Failure], deadline: float, idle_s: float) -> None:
        """Fills ``replies`` and ``failures`` until every rank has answered, died, or there is no more to wait for."""
        waiting = {pipe: rank for rank, pipe in enumerate(self._pipes)}
        for failure in failures:
            waiting = {pipe: rank for pipe, rank in waiting.items() if rank != failure.rank}
        limit, patience = deadline, Patience(idle_s)
        while waiting:
            if failures:
                limit = min(limit, time.monotonic() + (CORE_DUMP_S if self._only_lost(failures) else GRACE_S))
            ready = wait(list(waiting), timeout=max(0.0, min(LOOK_S, limit - time.monotonic())))
            silent = {rank: int(self._processes[rank].pid) for rank in waiting.values()}
            if not ready and (time.monotonic() >= limit or patience.ends(list(silent.values()))):
                if not failures:
                    assert self._folder is not None
                    failures.append(silence(silent, self._folder))
                return
            for pipe in ready:
                assert isinstance(pipe, Connection)
                self._read(waiting.pop(pipe), pipe, replies, failures)

    def _only_lost(self, failures: list[Failure]) -> bool:
        """Whether all we know is that ranks, which still live, have lost a neighbour."""
        return all(
            one.kind == "crash" and one.rank is not None and self._processes[one.rank].is_alive() for one in failures
        )

    def _read(self, rank: int, pipe: Connection, replies: dict[int, Any], failures: list[Failure]) -> None:
        try:
            reply = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            failures.insert(0, self._death(rank))  # before what the neighbours say of having lost it
            return
        if reply["failure"] is not None:
            failures.append(Failure.model_validate(reply["failure"]))
        else:
            replies[rank] = reply["value"]

    def _death(self, rank: int) -> Failure:
        """Describes a rank that has gone."""
        process = self._processes[rank]
        process.join(1.0)
        assert self._folder is not None
        return death(rank, process.exitcode, self._folder, oom_kills() != self._oom_kills)


def root_cause(failures: list[Failure]) -> Failure:
    """The failure that explains the others: running out of memory before an error before a death or a lost connection;
    of equals the first."""
    order = {"out_of_memory": 0, "model_error": 1, "crash": 2, "hang": 3}
    return min(failures, key=lambda failure: order[failure.kind])


def run_rank(rank: int, ranks: int, device: str, folder: str, connection: Connection, memory_limit: int | None) -> None:
    """Runs in the rank's process, where torch is loaded; the controller itself never imports it."""
    from autotune.pipeline.worker import serve

    serve(rank, ranks, device, folder, connection, memory_limit)


def load_torch() -> None:
    """Starts the server that ranks are forked from, if it does not run yet, and does not wait until it has torch."""
    CONTEXT.set_forkserver_preload(["autotune.pipeline.preload"])
    folder = os.environ["AUTOTUNE_FOLDER"] = util.get_temp_dir()  # multiprocessing's own; the server removes it
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{folder}/inductor")  # torch makes one when it is loaded
    forkserver.ensure_running()


def survey() -> dict[str, Any]:
    """What torch sees on this host, asked in a process of its own so that the controller needs no torch."""
    answer: dict[str, Any] = in_torch(run_survey)
    return answer


def matrix_rate(device: str, ranks: int, precision: str) -> float:
    """Floating-point operations per second that one of ``ranks`` reaches in a large matrix product, timed here."""
    return float(in_torch(run_matrix_rate, device, ranks, precision))


def in_torch(work: Callable[..., Any], *arguments: object) -> Any:
    """What ``work(*arguments)`` returns in a process that has torch loaded: a JSON value."""
    load_torch()
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=send_answer, args=(theirs, work, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        return json.loads(ours.recv_bytes())
    except EOFError:
        raise DeviceError("torch could not be loaded; run autotune doctor, or install torch again") from None
    finally:
        process.join()
        ours.close()


def send_answer(connection: Connection, work: Callable[..., Any], *arguments: object) -> None:
    """Runs in a process that has torch loaded."""
    connection.send_bytes(json.dumps(work(*arguments)).encode())


def run_survey() -> dict[str, Any]:
    """Runs in a process that has torch loaded."""
    from autotune.pipeline.survey import environment

    return environment()


def run_matrix_rate(device: str, ranks: int, precision: str) -> float:
    """Runs in a process that has torch loaded."""
    from autotune.pipeline.survey import matrix_rate

    return matrix_rate(device, ranks, precision)
