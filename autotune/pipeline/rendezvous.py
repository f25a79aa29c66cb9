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
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from autotune.errors import DeviceError, InputError
from autotune.pipeline.handshake import as_connection, receive_hello, refuse
from autotune.pipeline.remote import LOST_S, RemoteRank, by_host, meet
from autotune.pipeline.wire import Hello, Leave, Seat, Welcome

AT_ONCE = 16  # connections whose handshake goes on; a silent one ends after handshake.SILENCE_S
PRESENT_S = 4.0  # since a worker's last sign of life, within which nobody else may take its place


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
        self._free = threading.BoundedSemaphore(AT_ONCE)
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
        self._take_in()
        for worker in self._workers.values():
            with suppress(OSError):
                worker.order(Leave())
            if worker.is_connected:
                worker.connection.close()
        self.tell()

    def _listen(self) -> None:
        while True:
            self._free.acquire()
            try:
                plain, (address, *_) = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._meet, args=(plain, address), daemon=True, name="handshake").start()

    def _meet(self, plain: socket.socket, address: str) -> None:
        """Lets a worker in, or says why not."""
        try:
            self._shake_hands(as_connection(plain), address)
        finally:
            self._free.release()

    def _shake_hands(self, connection: Connection, address: str) -> None:
        try:
            hello = receive_hello(connection, self.secret)
        except AuthenticationError:
            self._complaints.put((address, "it knows another secret"))
            connection.close()
            return
        except (OSError, EOFError, ValueError):
            self._complaints.put((address, "it is no worker: it did not say what a worker says"))
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
                return self._in_order()
            where = f"{self.address[0]}:{self.address[1]}"
            words = f"waiting at {where} for {len(missing)} of {self.identity.ranks} workers"
            words += ", who were here before" if self._order else ""
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

    def _in_order(self) -> list[RemoteRank]:
        """All workers by rank; warns where a rank is not on the host any more that it was on."""
        before = self.hosts
        self._order = by_host(self._workers.values(), self._order)
        for rank, (old, new) in enumerate(zip(before, self.hosts, strict=False)):
            if old != new:
                self.on_warning(f"rank {rank} goes on on host {new}, no longer on {old}")
        return self._order

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
