"""Where the workers of other hosts come to, and what the controller holds of each: the ranks of a pipeline that spans
hosts.

::

    worker of host a --TCP--+
    worker of host a --TCP--+-- Rendezvous, one address, one secret -- Ranks
    worker of host b --TCP--+

Plain sockets: ZeroMQ with CURVE was tried behind the same tests. It came to no fewer lines and would need a compiled
package in the environment of every worker. A worker with the wrong secret sees only that the connection ends, and the
controller is not told when files run out. What it encrypts is this alone; tensors and torch's stores cross the same
network in the clear.
"""

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from autotune.errors import DeviceError, InputError
from autotune.identity import KIND
from autotune.pipeline.hosts.handshake import WrongSecret, as_connection, receive_hello, refuse, shut_down
from autotune.pipeline.hosts.remote import LOST_S, RemoteRank, by_host, stop_ranks, wait_until_joined
from autotune.pipeline.hosts.wire import MOST_BYTES, Assignment, Hello, Leave, Welcome, send

AT_ONCE = 16  # connections whose handshake goes on; beyond that the oldest is cut off
AGAIN_S = 0.2  # between two looks at who has come
FAREWELL_S = 2.0
PRESENT_S = 4.0  # since a worker's last heartbeat, within which nobody else may take its place


class Identity(NamedTuple):
    """Versions, run and number of ranks, in which a worker must agree with the controller."""

    version: str
    run_id: str
    ranks: int

    def objection(self, hello: Hello) -> str | None:
        """Return why a worker does not belong here."""
        if hello.version != self.version:
            return f"it is autotune {hello.version}, the controller {self.version}; install the same on every host"
        if hello.run_id != self.run_id:
            return f"it belongs to run {hello.run_id!r}, the controller to {self.run_id!r}; see --run-id"
        if hello.count != self.ranks:
            return (
                f"it is one of {hello.count} workers, but the run has {self.ranks} ranks; make --stages x"
                " --data-parallel equal to nnodes x nproc-per-node"
            )
        return None if hello.number < self.ranks else f"its number is {hello.number}, of {hello.count} workers"


class Rendezvous:
    """A listener on one address for the workers of ``identity``. A context manager: leaving it dismisses them.

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
        self.secret, self.identity = secret, identity
        self.host_timeout_s, self.on_progress, self.on_warning = host_timeout_s, on_progress, on_warning
        self.turned_away: list[str] = []
        self._workers: dict[int, RemoteRank] = {}  # by their own number
        self._order: list[RemoteRank] = []  # by rank
        self._arrived: SimpleQueue[RemoteRank] = SimpleQueue()
        self._complaints: SimpleQueue[str] = SimpleQueue()
        self._strangers: deque[Connection] = deque()  # whose handshake goes on, the oldest first
        self._lock = threading.Lock()  # of _strangers
        self._is_over = False
        try:
            self._listening = socket.create_server(address)
        except OSError as error:
            raise InputError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; give an address of this host"
                " and a free port with --rendezvous"
            ) from None
        self.address: tuple[str, int] = self._listening.getsockname()
        self.where = f"{self.address[0]}:{self.address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True, name="rendezvous").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        self._listening.close()
        self.accept()
        dismiss([worker for worker in self._workers.values() if worker.is_connected])

    def _listen(self) -> None:
        while not self._is_over:
            try:
                plain, (address, *_) = self._listening.accept()
                connection = as_connection(plain)
                arguments = (connection, address)
                threading.Thread(target=self._handshake, args=arguments, daemon=True, name="handshake").start()
            except (OSError, RuntimeError) as error:  # no more files or threads; a client that is gone already
                if not self._is_over:
                    self._complaints.put(f"dropped a connection: {error}")
                    time.sleep(AGAIN_S)

    def _handshake(self, connection: Connection, address: str) -> None:
        """Let a worker in, or tell it why not."""
        with self._lock:
            self._strangers.append(connection)
            if len(self._strangers) > AT_ONCE:
                shut_down(self._strangers.popleft())
        try:
            hello = receive_hello(connection, self.secret)
            refusal = self.identity.objection(hello)
        except WrongSecret:
            refusal = "it knows another secret"
        except (OSError, EOFError, ValueError):
            refusal = "it is no worker: it did not say what a worker says"
        with self._lock, suppress(ValueError):
            self._strangers.remove(connection)
        if refusal:
            self._complaints.put(f"turned {address} away: {refusal}")
            refuse(connection, refusal)
        else:
            self._arrived.put(RemoteRank(connection, hello))

    def accept(self) -> None:
        """Read what connected workers have said, and accept new ones where no live worker has their number; warn of
        those turned away, once of each kind."""
        for worker in self._workers.values():
            worker.drain()
            worker.give_up(LOST_S)
        for number, one in self._newest().items():
            before = self._workers.get(number)
            if before is not None and before.is_connected and before.give_up(PRESENT_S) is None:
                refuse(one.connection, f"worker {number} is here already, from {before.hello.address}", is_final=False)
                continue
            with suppress(OSError):
                send(one.connection, Welcome())
                one.heard = time.monotonic()
                self._workers[number] = one
        self._workers = {number: worker for number, worker in self._workers.items() if worker.is_connected}
        with suppress(Empty):
            while True:
                warning = f"rendezvous: {self._complaints.get_nowait()}"
                if warning not in self.turned_away:
                    self.turned_away.append(warning)
                    self.on_warning(warning)

    def _newest(self) -> dict[int, RemoteRank]:
        """New connections, only the latest of each worker: one that was not answered in time connects again."""
        found: dict[int, RemoteRank] = {}
        with suppress(Empty):
            while True:
                one = self._arrived.get_nowait()
                if one.hello.number in found:
                    found[one.hello.number].connection.close()
                found[one.hello.number] = one
        return found

    @property
    def is_complete(self) -> bool:
        """True while all workers that had ranks are still here."""
        self.accept()
        return all(worker.is_connected for worker in self._order)

    def gather(self, deadline: float | None = None) -> list[RemoteRank]:
        """Return every worker, by rank, once all are here. Raises DeviceError where they do not come in time.

        Ranks follow the hosts, in the order of their first worker, so that neighbours share a host where they can.
        """
        deadline, reported = deadline or time.monotonic() + self.host_timeout_s, ""
        while True:
            self.accept()
            missing = [number for number in range(self.identity.ranks) if number not in self._workers]
            if not missing:
                return self._in_order()
            progress = f"waiting at {self.where} for {len(missing)} of {self.identity.ranks} workers"
            progress += ", who were here before" if self._order else ""
            if progress != reported:
                self.on_progress(progress)
                reported = progress
            if time.monotonic() > deadline:
                who = ", ".join(map(self._known, missing))
                raise DeviceError(
                    f"worker {who} of {self.identity.ranks} did not come to {self.where} within"
                    f" {self.host_timeout_s:g} s; start autotune worker there, or raise --host-timeout"
                )
            present = [worker.connection for worker in self._workers.values()]
            wait(present, timeout=AGAIN_S) if present else time.sleep(AGAIN_S)

    def _in_order(self) -> list[RemoteRank]:
        """Return all workers by rank; warn where a rank has moved to another host, and raise DeviceError where that is
        another kind of host."""
        before, self._order = self._order, by_host(self._workers.values(), self._order)
        check_addresses(self._order)
        for old, new in zip(before, self._order, strict=False):
            differs = [name for name in KIND if old.hello.environment.get(name) != new.hello.environment.get(name)]
            if differs:
                raise DeviceError(
                    f"host {new.host} came in place of {old.host}, and has another {differs[0]}; figures of both cannot"
                    " be compared: bring back one of the same kind, or run again"
                )
            if old.host != new.host:
                self.on_warning(f"host {new.host} takes over a rank from {old.host}")
        return self._order

    def _known(self, number: int) -> str:
        """``2 (beta)``: the worker, and its host if it was here before."""
        host = next((worker.host for worker in self._order if worker.hello.number == number), None)
        return f"{number} ({host})" if host else str(number)

    def start(self, device: str, memory_limit: int | None, replicas: int = 1) -> Sequence[RemoteRank]:
        """Return fresh ranks on all hosts, once they have joined each other; wait for a host that is lost meanwhile.
        Raises DeviceError where a host does not come in time, or ranks fail to start twice with all hosts there."""
        deadline, accidents = time.monotonic() + self.host_timeout_s, 0
        while True:
            workers = self.gather(deadline)
            self.assign(workers, device, memory_limit, replicas)
            self.on_progress("starting the ranks")
            failure = wait_until_joined(workers)
            if failure is None:
                return workers
            stop_ranks(workers)
            accidents += all(worker.is_connected for worker in workers)
            if accidents > 1 or time.monotonic() > deadline:
                host = workers[failure.rank].host if failure.rank is not None else self.hosts[0]
                raise DeviceError(f"the ranks did not start: {failure.message}; see autotune doctor on host {host}")

    def assign(self, workers: Sequence[RemoteRank], device: str, memory_limit: int | None, replicas: int = 1) -> None:
        """Tell every worker which rank to start."""
        local = Counter(worker.host for worker in workers)
        found: Counter[str] = Counter()
        for rank, worker in enumerate(workers):
            assignment = Assignment(
                rank=rank,
                ranks=len(workers),
                local_rank=found[worker.host],
                local_ranks=local[worker.host],
                device=device,
                memory_limit=memory_limit,
                address=worker.hello.address,
                host=worker.host,
                replicas=replicas,
            )
            found[worker.host] += 1
            worker.begin(assignment)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The name of each rank's host."""
        return tuple(worker.host for worker in self._order)

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The environment that each rank's worker sees on its host, by rank."""
        return [worker.hello.environment for worker in self._order]


def check_addresses(workers: Sequence[RemoteRank]) -> None:
    """Raise DeviceError where some hosts, but not all, are known by an address that only they can reach."""
    loopback = {worker.host for worker in workers if worker.hello.address.startswith("127.")}
    others = {worker.host for worker in workers} - loopback
    if loopback and others:
        raise DeviceError(
            f"the workers of host {min(loopback)} came by a loopback address, over which those of {min(others)} cannot"
            " reach them; give the address of this host that all hosts reach, to run and to every worker"
        )


def dismiss(workers: Sequence[RemoteRank]) -> None:
    """End the workers; wait a moment until each has read it, because closing a connection drops what is on its way."""
    waiting = {worker.connection for worker in workers}
    for worker in workers:
        with suppress(OSError):
            worker.order(Leave())
            shut_down(worker.connection, socket.SHUT_WR)
    deadline = time.monotonic() + FAREWELL_S
    while waiting and time.monotonic() < deadline:
        for connection in wait(list(waiting), timeout=AGAIN_S):
            assert isinstance(connection, Connection)
            try:
                connection.recv_bytes(MOST_BYTES)
            except (EOFError, OSError):
                waiting.remove(connection)
    for worker in workers:
        worker.connection.close()
