"""Where the workers of other hosts come to, and what the controller holds of each: the ranks of a pipeline that spans
hosts.

::

    worker of host a --TCP--+
    worker of host a --TCP--+-- Rendezvous, one address, one secret -- Ranks
    worker of host b --TCP--+
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from autotune.errors import DeviceError, InputError
from autotune.pipeline.handshake import as_connection, receive_hello, refuse
from autotune.pipeline.outcome import Failure
from autotune.pipeline.wire import (
    MET,
    MOST_BYTES,
    NEWS,
    Answer,
    Ask,
    Hello,
    Leave,
    Look,
    Order,
    Seat,
    Start,
    Stop,
    Welcome,
)

AT_ONCE = 16  # connections whose handshake goes on
LOST_S = 10.0  # without a sign of life of a worker
PRESENT_S = 4.0  # since its last one, within which nobody else may take its place
MEETING_S = 120.0  # for ranks to start and to find each other


class Identity(NamedTuple):
    """What a worker must agree with: versions, the run, the number of ranks."""

    version: str
    torch_version: str
    run_id: str
    ranks: int

    def objection(self, hello: Hello) -> str | None:
        """Why a worker does not belong here."""
        if hello.version != self.version:
            return f"it is autotune {hello.version}, the controller {self.version}; install the same on every host"
        if hello.torch_version != self.torch_version:
            return f"its torch is {hello.torch_version}, the controller's {self.torch_version}; install the same"
        if hello.run_id != self.run_id:
            return f"it belongs to run {hello.run_id!r}, the controller to {self.run_id!r}; see --run-id"
        if hello.count != self.ranks:
            return (
                f"it is one of {hello.count} workers, but the run has {self.ranks} stages; make --stages equal to"
                " nnodes x nproc-per-node"
            )
        return None if hello.number < self.ranks else f"its number is {hello.number}, of {hello.count} workers"


class RemoteRank:
    """A worker and the rank that it keeps on its host, as the controller sees them."""

    def __init__(self, connection: Connection, hello: Hello) -> None:
        self.connection, self.hello = connection, hello
        self.host = hello.address  # until all hosts are known, and with them what tells them apart
        self.rank, self.generation = hello.number, 0  # until it has a seat
        self.seen = Look()
        self.heard = time.monotonic()
        self.gone: Failure | None = None  # the rank, or the worker with it
        self.is_connected = True

    @property
    def is_alive(self) -> bool:
        """Whether the rank is ready for a command."""
        self.drain()
        return self.is_connected and self.gone is None

    def order(self, order: Order) -> None:
        """Tells the worker; raises OSError where it has gone."""
        if not self.is_connected:
            raise OSError("not connected")
        self.connection.send_bytes(order.model_dump_json().encode())

    def begin(self, seat: Seat) -> None:
        """Has a fresh rank started."""
        self.rank, self.generation, self.gone, self.seen = seat.rank, self.generation + 1, None, Look()
        with suppress(OSError):
            self.order(Start(seat=seat, generation=self.generation))

    def send(self, message: bytes) -> None:
        if self.gone is not None:
            raise OSError("the rank has gone")
        self.order(Ask(message=message.decode()))

    def hear(self) -> bytes | Failure | None:
        try:
            news = NEWS.validate_json(self.connection.recv_bytes(MOST_BYTES))
        except (EOFError, OSError, ValueError):
            return self.leave("has gone, or its worker: the connection has ended")
        self.heard = time.monotonic()
        if isinstance(news, Look):
            self.seen = news
        elif news.generation != self.generation:
            return None  # of a rank that was replaced since
        elif isinstance(news, Answer):
            return news.message.encode()
        else:
            self.gone = news.failure
        return self.gone

    def drain(self) -> None:
        """Hears what was said meanwhile; an answer that nobody waits for any more is dropped."""
        with suppress(OSError):
            while self.is_connected and self.connection.poll():
                self.hear()

    def look(self) -> Look:
        return self.seen

    def lost(self, after_s: float) -> Failure | None:
        if time.monotonic() - self.heard < after_s:
            return None
        return self.leave(f"is lost: nothing was heard of it for {time.monotonic() - self.heard:.0f} s")

    def leave(self, what: str) -> Failure:
        """The worker has left, in whatever way."""
        self.connection.close()
        self.is_connected = False
        self.gone = Failure(kind="crash", rank=self.rank, message=f"rank {self.rank}: its host {what}")
        return self.gone

    def death(self) -> Failure:
        return self.gone or self.leave("has gone, or its worker: the connection has ended")

    def end(self) -> None:
        with suppress(OSError):
            self.order(Stop())

    def close(self) -> None:
        """The worker stays, for the next rank."""


class Rendezvous:
    """A listener on one address for the workers of ``identity``. A context manager: leaving it sends them home.

    ``host_timeout_s``: how long a host may be away. ``on_progress`` and ``on_warning`` are told by whoever calls.
    """

    def __init__(
        self,
        address: tuple[str, int],
        secret: bytes,
        identity: Identity,
        host_timeout_s: float,
        on_progress: Callable[[str], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self.address, self.secret, self.identity = address, secret, identity
        self.host_timeout_s, self.on_progress, self.on_warning = host_timeout_s, on_progress, on_warning
        self._workers: dict[int, RemoteRank] = {}  # by their own number
        self._order: list[RemoteRank] = []  # by rank
        self._arrived: SimpleQueue[RemoteRank] = SimpleQueue()
        self._complaints: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._said: Counter[tuple[str, str]] = Counter()
        self.turned_away: list[str] = []
        self._pool = ThreadPoolExecutor(AT_ONCE, "handshake")
        try:
            self._listening = socket.create_server(address)
        except OSError as error:
            where = f"{address[0]}:{address[1]}"
            raise InputError(
                f"cannot listen on {where}: {error.strerror or error}; give an address of this host and a free port"
                " with --rendezvous"
            ) from None

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True, name="rendezvous").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        self._listening.close()
        self._pool.shutdown(cancel_futures=True)
        self._take_in()
        for worker in self._workers.values():
            with suppress(OSError):
                worker.order(Leave())
            if worker.is_connected:
                worker.connection.close()
        self.tell()

    def _listen(self) -> None:
        while True:
            try:
                plain, (address, *_) = self._listening.accept()
            except OSError:
                return
            self._pool.submit(self._meet, plain, address)

    def _meet(self, plain: socket.socket, address: str) -> None:
        """Lets a worker in, or says why not."""
        connection = as_connection(plain)
        try:
            hello = receive_hello(connection, self.secret)
        except AuthenticationError:
            self._complaints.put((address, "knows another secret"))
            connection.close()
            return
        except (OSError, EOFError, ValueError):
            self._complaints.put((address, "is no worker: it did not say what a worker says"))
            connection.close()
            return
        if words := self.identity.objection(hello):
            self._complaints.put((address, words))
            refuse(connection, words)
            return
        self._arrived.put(RemoteRank(connection, hello))

    def tell(self) -> None:
        """Warns of who was turned away, once of each kind."""
        with suppress(Empty):
            while True:
                complaint = self._complaints.get_nowait()
                self._said[complaint] += 1
                if self._said[complaint] == 1:
                    words = f"turned away at the rendezvous: {complaint[0]}, for {complaint[1]}"
                    self.turned_away.append(words)
                    self.on_warning(words)

    def _take_in(self) -> None:
        """Gives those who have arrived the place of their number, unless somebody live has it."""
        for worker in self._workers.values():
            worker.drain()
            worker.lost(LOST_S)
        self._workers = {number: worker for number, worker in self._workers.items() if worker.is_connected}
        with suppress(Empty):
            while True:
                one = self._arrived.get_nowait()
                before = self._workers.get(one.hello.number)
                if before is not None and before.lost(PRESENT_S) is None:
                    words = f"worker {one.hello.number} is here already, from {before.hello.address}"
                    refuse(one.connection, words, is_final=False)
                    continue
                with suppress(OSError):
                    one.connection.send_bytes(Welcome().model_dump_json().encode())
                    self._workers[one.hello.number] = one

    def gather(self) -> list[RemoteRank]:
        """Every worker, by rank; waits for those who are not here. Raises DeviceError where they do not come in time.

        Ranks follow the hosts, in the order of their first worker, so that neighbours share a host where they can.
        """
        deadline, told = time.monotonic() + self.host_timeout_s, ""
        while True:
            self._take_in()
            self.tell()
            missing = [number for number in range(self.identity.ranks) if number not in self._workers]
            if not missing:
                self._order = by_host(self._workers.values())
                return self._order
            where = f"{self.address[0]}:{self.address[1]}"
            words = f"waiting at {where} for {len(missing)} of {self.identity.ranks} workers"
            if words != told:
                self.on_progress(words)
                told = words
            if time.monotonic() > deadline:
                who = ", ".join(map(self._known, missing))
                raise DeviceError(
                    f"worker {who} of {self.identity.ranks} did not come to {where} within {self.host_timeout_s:g} s;"
                    " start autotune worker there, or raise --host-timeout"
                )
            present = [worker.connection for worker in self._workers.values()]
            wait(present, timeout=0.2) if present else time.sleep(0.2)

    def _known(self, number: int) -> str:
        """``2 (beta)``: the worker, and its host if it was here before."""
        host = next((worker.host for worker in self._order if worker.hello.number == number), None)
        return f"{number} ({host})" if host else str(number)

    def start(self, device: str, memory_limit: int | None) -> Sequence[RemoteRank]:
        """Fresh ranks on all hosts, which have met; waits for a host that is lost meanwhile. Raises DeviceError where a
        host does not come, or a rank does not start."""
        while True:
            workers = self.gather()
            self.seat(workers, device, memory_limit)
            self.on_progress("starting the ranks")
            failure = meet(workers)
            if failure is None:
                return workers
            for worker in workers:
                worker.end()
            if all(worker.is_connected for worker in workers):
                raise DeviceError(f"the ranks did not start: {failure.message}; see autotune doctor on that host")

    def seat(self, workers: Sequence[RemoteRank], device: str, memory_limit: int | None) -> None:
        """Tells every worker which rank to start."""
        local = Counter(worker.host for worker in workers)
        found: Counter[str] = Counter()
        for rank, worker in enumerate(workers):
            seat = Seat(
                rank=rank,
                ranks=len(workers),
                local_rank=found[worker.host],
                local_ranks=local[worker.host],
                device=device,
                memory_limit=memory_limit,
                address=worker.hello.address,
            )
            found[worker.host] += 1
            worker.begin(seat)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The name of each rank's host."""
        return tuple(worker.host for worker in self._order)

    @property
    def environments(self) -> list[dict[str, Any]]:
        """What each rank's worker sees on its host, by rank."""
        return [worker.hello.environment for worker in self._order]


def meet(workers: Sequence[RemoteRank]) -> Failure | None:
    """Returns when all ranks have met, for which the others must be told where they find rank 0; or why they do not."""
    deadline, waiting = time.monotonic() + MEETING_S, {worker.connection: worker for worker in workers}
    while waiting:
        for connection in wait(list(waiting), timeout=1.0):
            assert isinstance(connection, Connection)
            said = waiting[connection].hear()
            if isinstance(said, Failure):
                return said
            if said == MET:
                del waiting[connection]
            elif said is not None:
                for other in workers[1:]:
                    with suppress(OSError):
                        other.send(said)
        if lost := next((found for worker in waiting.values() if (found := worker.lost(LOST_S))), None):
            return lost
        if time.monotonic() > deadline:
            ranks = ", ".join(str(worker.rank) for worker in waiting.values())
            return Failure(kind="hang", message=f"rank {ranks} did not meet the others within {MEETING_S:g} s")
    return None


def by_host(workers: Iterable[RemoteRank]) -> list[RemoteRank]:
    """In the order of their numbers, but those of one host together; names each host."""
    in_turn = sorted(workers, key=lambda worker: worker.hello.number)
    first: dict[str, int] = {}
    for worker in in_turn:
        first.setdefault(worker.hello.address, worker.hello.number)
    names = {worker.hello.address: str(worker.hello.environment["hostname"]) for worker in in_turn}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    for worker in in_turn:
        name = names[worker.hello.address]
        worker.host = f"{name} ({worker.hello.address})" if name in shared else name
    return sorted(in_turn, key=lambda worker: (first[worker.hello.address], worker.hello.number))
