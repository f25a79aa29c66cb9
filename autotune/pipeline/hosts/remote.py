"""The controller's handle of a rank on another host: the connection to the worker that keeps it."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from autotune.pipeline.hosts.wire import (
    MOST_BYTES,
    READY,
    Answer,
    Ask,
    Assignment,
    Heartbeat,
    Hello,
    News,
    Order,
    ProcessStatus,
    Start,
    Stop,
    rank_name,
    send,
)
from autotune.records.failure import Failure
from autotune.records.plain import read

LOST_S = 10.0  # without a heartbeat of a worker
JOIN_S = 120.0  # for ranks to start and to find each other


class RemoteRank:
    """A worker and the rank that it keeps on its host, as the controller sees them."""

    assignment: Assignment
    """The rank's, from the first ``begin`` on."""

    def __init__(self, connection: Connection, hello: Hello) -> None:
        self.connection, self.hello = connection, hello
        self.host = hello.address  # until all hosts are known, and with them what tells them apart
        self.rank, self.generation = hello.number, 0  # until it has an assignment
        self.acknowledged = 0  # the latest generation that the worker has reported from
        self.last_status = ProcessStatus()
        self.heard = time.monotonic()
        self.gone: Failure | None = None  # the rank, or the worker with it
        self.is_connected = True

    @property
    def is_alive(self) -> bool:
        """True while the rank is ready for a command."""
        self.drain()
        self.give_up(LOST_S)
        return self.is_connected and self.gone is None

    def order(self, order: Order) -> None:
        """Send an order to the worker; raise OSError where it has gone."""
        if not self.is_connected:
            raise OSError("not connected")
        send(self.connection, order)

    def begin(self, assignment: Assignment) -> None:
        """Have a fresh rank started."""
        self.assignment, self.rank, self.generation = assignment, assignment.rank, self.generation + 1
        self.gone, self.last_status = None, ProcessStatus()
        with suppress(OSError):
            self.order(Start(assignment=assignment, generation=self.generation))

    def send(self, message: bytes) -> None:
        if self.gone is not None:
            raise OSError("the rank has gone")
        self.order(Ask(message=message.decode()))

    def hear(self) -> bytes | Failure | None:
        try:
            news = read(News, self.connection.recv_bytes(MOST_BYTES))
        except (EOFError, OSError, ValueError) as error:
            return self.disconnect(f"has gone, or its worker: {str(error) or 'the connection has ended'}")
        self.heard = time.monotonic()
        if news.generation != self.generation:
            return None  # of a rank that was replaced since
        self.acknowledged = news.generation
        if isinstance(news, Heartbeat):
            self.last_status = news.status
        elif isinstance(news, Answer):
            return news.message.encode()
        else:
            self.gone = news.failure
        return self.gone

    def drain(self) -> None:
        """Read what was sent meanwhile; an answer that nobody waits for any more is dropped."""
        with suppress(OSError):
            while self.is_connected and self.connection.poll():
                self.hear()

    def status(self) -> ProcessStatus:
        return self.last_status

    def give_up(self, after_s: float) -> Failure | None:
        silent_s = time.monotonic() - self.heard
        if not self.is_connected or silent_s < after_s:
            return None
        return self.disconnect(f"is lost: nothing was heard of it for {silent_s:.0f} s")

    def disconnect(self, what: str) -> Failure:
        """Close the connection to a worker that has gone or been given up, and return that failure."""
        self.connection.close()
        self.is_connected = False
        message = f"{rank_name(self.rank, self.host)}: its host {what}"
        self.gone = Failure(kind="crash", rank=self.rank, message=message)
        return self.gone

    def diagnose_exit(self) -> Failure:
        return self.gone or self.disconnect("has gone, or its worker: the connection has ended")

    def end(self) -> None:
        self.generation += 1
        with suppress(OSError):
            self.order(Stop(generation=self.generation))

    def close(self) -> None:
        """Do nothing: the worker stays, for the next rank."""


def wait_until_joined(workers: Sequence[RemoteRank]) -> Failure | None:
    """Return None once all ranks are in the process group, or why they do not join it. Rank 0 says where its store is,
    and that is passed on to the others."""
    deadline, waiting = time.monotonic() + JOIN_S, {worker.connection: worker for worker in workers}
    while waiting:
        for connection in wait(list(waiting), timeout=1.0):
            assert isinstance(connection, Connection)
            said = waiting[connection].hear()
            if isinstance(said, Failure):
                return said
            if said == READY:
                del waiting[connection]
            elif said is not None:
                for other in workers[1:]:
                    with suppress(OSError):
                        other.send(said)
        if lost := next((found for worker in waiting.values() if (found := worker.give_up(LOST_S))), None):
            return lost
        if time.monotonic() > deadline:
            ranks = ", ".join(str(worker.rank) for worker in waiting.values())
            return Failure(kind="hang", message=f"rank {ranks} did not join the others within {JOIN_S:g} s")
    return None


def stop_ranks(workers: Sequence[RemoteRank]) -> None:
    """End all ranks; return when every worker has acknowledged that, or is known to be lost."""
    for worker in workers:
        worker.end()
    while waiting := {one.connection: one for one in workers if one.is_connected and one.acknowledged < one.generation}:
        for connection in wait(list(waiting), timeout=1.0):
            waiting[connection].hear()  # type: ignore[index]
        for worker in waiting.values():
            worker.give_up(LOST_S)


Host = tuple[str, str]
"""Name and address: containers of several hosts may have the same address."""


def host_of(worker: RemoteRank) -> Host:
    """Return where a worker is."""
    return str(worker.hello.environment["hostname"]), worker.hello.address


def by_host(workers: Iterable[RemoteRank], before: Sequence[RemoteRank] = ()) -> list[RemoteRank]:
    """Return workers in the order of their numbers, but those of one host together, and the name of each one's host.

    Hosts that had ranks ``before`` keep their place, because a launcher may count anew after a restart; a new host
    takes the place of one that has left.
    """
    in_turn = sorted(workers, key=lambda worker: worker.hello.number)
    hosts = list(dict.fromkeys(map(host_of, in_turn)))
    order = list(dict.fromkeys(map(host_of, before)))
    for new in [host for host in hosts if host not in order]:
        left = [host for host in order if host not in hosts]
        left.sort(key=lambda host: host[0] != new[0])  # of the same name first
        if left:
            order[order.index(left[0])] = new
        else:
            order.append(new)
    shared = {name for name, count in Counter(name for name, _ in hosts).items() if count > 1}
    for worker in in_turn:
        name, address = host_of(worker)
        worker.host = f"{name} ({address})" if name in shared else name
    return sorted(in_turn, key=lambda worker: (order.index(host_of(worker)), worker.hello.number))
