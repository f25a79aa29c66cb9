"""The worker of a rank on a host of its own: keeps the rank for a controller that may be elsewhere.

A launcher (torchrun, Slurm, a pod per host) starts one per rank. It outlives the rank, which is started afresh after
every failure, and the controller: where that is lost it waits for it, or for the next one.
"""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from autotune import __version__
from autotune.errors import DeviceError, UsageError
from autotune.pipeline.control.process import LocalRank, make_folder, remove_folder
from autotune.pipeline.control.server import server
from autotune.pipeline.control.survey import collect_environment
from autotune.pipeline.hosts.handshake import SILENCE_S, WrongSecret, as_connection, send_hello
from autotune.pipeline.hosts.wire import (
    MOST_BYTES,
    Answer,
    Ask,
    Exited,
    Heartbeat,
    Hello,
    Leave,
    News,
    Order,
    ProcessStatus,
    Start,
    send,
)
from autotune.records.failure import Failure
from autotune.records.plain import read

STATUS_S = 1.0  # how often the controller hears of the rank
NO_RUN = "none"  # what torchrun calls a run without --rdzv-id
AGAIN_S = 1.0  # between two attempts to reach the controller


class ControllerLost(Exception):
    """The controller, its host, or the network between has gone; so the rank is of no more use."""


class Launched(NamedTuple):
    """Which of all workers this one is, and of which run, as its launcher says."""

    number: int
    workers: int
    run_id: str


def launched_as(environment: Mapping[str, str]) -> Launched:
    """Read the place from torchrun's variables, or Slurm's where there is no torchrun; raise UsageError where there is
    neither."""
    for number, count, run_id in (
        ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"),
    ):
        if number in environment and count in environment:
            for name in (number, count):
                if not environment[name].isdecimal():
                    raise UsageError(f"{name} is {environment[name]!r}; a launcher sets it to a number")
            return Launched(int(environment[number]), int(environment[count]), environment.get(run_id, NO_RUN))
    raise UsageError(
        "autotune worker is started by a launcher, which says what rank it is: torchrun ... -m autotune worker, or srun"
        " autotune worker; RANK and WORLD_SIZE are not set"
    )


class Worker:
    """Reaches the controller at ``address``, and keeps a rank for it until it dismisses us."""

    def __init__(
        self,
        address: tuple[str, int],
        secret: bytes,
        place: Launched,
        host_timeout_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.address, self.secret, self.place = address, secret, place
        self.host_timeout_s, self.say = host_timeout_s, say
        self.where = f"{address[0]}:{address[1]}"
        self.rank: LocalRank | None = None
        self.generation = 0
        self.environment = collect_environment()

    def run(self) -> None:
        """Raise DeviceError where the controller stays away, or turns this worker away."""
        self.say(f"worker {self.place.number} of {self.place.workers} reports to {self.where}")
        while True:
            connection = self.reach()
            try:
                if self.serve(connection):
                    return
            except ControllerLost:
                self.say(
                    f"worker {self.place.number} has lost the controller at {self.where}; it tries to reach it again"
                )
            finally:
                self.end()
                connection.close()

    def reach(self) -> Connection:
        """Return a connection over which the controller has welcomed us."""
        deadline, why = time.monotonic() + self.host_timeout_s, ""
        while time.monotonic() < deadline:
            connection = None
            try:
                plain = socket.create_connection(self.address, timeout=SILENCE_S)
                hello = self.hello(plain.getsockname()[0])
                connection = as_connection(plain)
                welcome = send_hello(connection, self.secret, hello)
                if welcome.refusal is None:
                    return connection
                why = f"it answered: {welcome.refusal}"
                if welcome.is_final:
                    raise DeviceError(f"the controller at {self.where} turned this worker away: {welcome.refusal}")
            except WrongSecret:
                raise DeviceError(
                    f"the controller at {self.where} and this worker do not have the same secret; give both the same"
                    " AUTOTUNE_SECRET or --secret-file"
                ) from None
            except (OSError, EOFError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error) or "the connection was closed"
                why = f"it took the connection, but then: {reason}" if connection is not None else reason
            if connection is not None:
                connection.close()
            time.sleep(AGAIN_S)
        raise DeviceError(
            f"no controller at {self.where} let this worker in within {self.host_timeout_s:g} s ({why}); start autotune"
            f" run --rendezvous {self.where}, or raise --host-timeout"
        )

    def hello(self, address: str) -> Hello:
        """Return what this worker says of itself to the controller."""
        return Hello(
            version=__version__,
            run_id=self.place.run_id,
            number=self.place.number,
            count=self.place.workers,
            address=address,
            environment=self.environment,
        )

    def serve(self, connection: Connection) -> bool:
        """Follow orders until the controller dismisses us (True); raise ControllerLost."""

        def tell(news: News) -> None:
            try:
                send(connection, news)
            except OSError as error:
                raise ControllerLost from error

        checked = time.monotonic()
        while True:
            both = [connection, *([self.rank.connection] if self.rank is not None else [])]
            ready = wait(both, timeout=STATUS_S)
            if self.rank is not None and self.rank.connection in ready:
                said = self.rank.hear()
                if isinstance(said, Failure):
                    self.end()
                    tell(Exited(generation=self.generation, failure=said))
                else:
                    tell(Answer(generation=self.generation, message=said.decode()))
            if connection in ready and not self.execute(connection, tell):
                return True
            if time.monotonic() - checked >= STATUS_S:
                status = self.rank.status() if self.rank is not None else ProcessStatus()
                tell(Heartbeat(generation=self.generation, status=status))
                checked = time.monotonic()

    def execute(self, connection: Connection, tell: Callable[[News], None]) -> bool:
        """Execute the controller's next order; return False where that was to leave."""
        try:
            order = read(Order, connection.recv_bytes(MOST_BYTES))
        except (EOFError, OSError, ValueError) as error:
            raise ControllerLost from error
        if isinstance(order, Ask):
            if self.rank is not None:
                with suppress(OSError):  # it has exited, which its connection tells in a moment
                    self.rank.send(order.message.encode())
            return True
        self.end()
        if isinstance(order, Leave):
            return False
        self.generation = order.generation
        if isinstance(order, Start):
            try:
                self.rank = LocalRank(order.assignment, make_folder(server()))
            except OSError as error:
                message = f"{order.assignment.name}: its process cannot be started: {error}"
                failure = Failure(kind="crash", rank=order.assignment.rank, message=message)
                tell(Exited(generation=order.generation, failure=failure))
        return True

    def end(self) -> None:
        """End the rank, if there is one."""
        if self.rank is not None:
            self.rank.end()
            self.rank.close()
            remove_folder(self.rank.folder)
            self.rank = None
