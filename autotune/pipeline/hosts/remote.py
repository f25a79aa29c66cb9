"""What the controller holds of a rank on another host: the connection to the worker that keeps it."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from autotune.pipeline.hosts.wire import (
    MET,
    MOST_BYTES,
    NEWS,
    Answer,
    Ask,
    Heartbeat,
    Hello,
    Look,
    Order,
    Seat,
    Start,
    Stop,
    send,
)
from autotune.records.outcome import Failure

LOST_S = 10.0  # without a heartbeat of a worker
MEETING_S = 120.0  # for ranks to start and to find each other


class RemoteRank:
    """A worker and the rank that it keeps on its host, as the controller sees them."""

    def __init__(self, connection: Connection, hello: Hello) -> None:
        self.connection, self.hello = connection, hello
        self.host = hello.address  # until all hosts are known, and with them what tells them apart
        self.rank, self.generation = hello.number, 0  # until it has a seat
        self.obeyed = 0  # up to which generation the worker has followed
        self.seen = Look()
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
        """Tells the worker; raises OSError where it has gone."""
        if not self.is_connected:
            raise OSError("not connected")
        send(self.connection, order)

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
        except (EOFError, OSError, ValueError) as error:
            return self.part(f"has gone, or its worker: {str(error) or 'the connection has ended'}")
        self.heard = time.monotonic()
        if news.generation != self.generation:
            return None  # of a rank that was replaced since
        self.obeyed = news.generation
        if isinstance(news, Heartbeat):
            self.seen = news.look
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

    def give_up(self, after_s: float) -> Failure | None:
        silent_s = time.monotonic() - self.heard
        if not self.is_connected or silent_s < after_s:
            return None
        return self.part(f"is lost: nothing was heard of it for {silent_s:.0f} s")

    def part(self, what: str) -> Failure:
        """Part with the worker, which is with us no more, in whatever way."""
        self.connection.close()
        self.is_connected = False
        self.gone = Failure(kind="crash", rank=self.rank, message=f"rank {self.rank}: its host {what}")
        return self.gone

    def death(self) -> Failure:
        return self.gone or self.part("has gone, or its worker: the connection has ended")

    def end(self) -> None:
        self.generation += 1
        with suppress(OSError):
            self.order(Stop(generation=self.generation))

    def close(self) -> None:
        """Do nothing: the worker stays, for the next rank."""


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
        if lost := next((found for worker in waiting.values() if (found := worker.give_up(LOST_S))), None):
            return lost
        if time.monotonic() > deadline:
            ranks = ", ".join(str(worker.rank) for worker in waiting.values())
            return Failure(kind="hang", message=f"rank {ranks} did not meet the others within {MEETING_S:g} s")
    return None


def settle(workers: Sequence[RemoteRank]) -> None:
    """Ends all ranks; returns when every worker has obeyed, or is known to be lost."""
    for worker in workers:
        worker.end()
    while waiting := {one.connection: one for one in workers if one.is_connected and one.obeyed < one.generation}:
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

    Hosts that had ranks ``before`` keep their place, for a launcher may count anew after a restart; and one that is new
    takes the place of one that is here no more.
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
