"""Ranks that share a host's cores, and messages that share the network between hosts, simulated exactly: processor
sharing, event by event."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from autotune.predict.simulator.dedicated import before_on_stream
from autotune.predict.simulator.graph import ActionGraph

Seconds = NDArray[np.float64]
ENDING = attrgetter("ending")


def slowdown_with(active: int, slowdown: Sequence[float]) -> float:
    """Return how many times slower each of ``active`` ranks runs; beyond the list in proportion to their number."""
    if active <= len(slowdown):
        return slowdown[active - 1]
    return slowdown[-1] * active / len(slowdown)


@dataclass(frozen=True)
class Contention:
    """Which ranks share cores, and which share an uplink: a group number per rank.

    ``cores[r]``: with k of the ranks active that have the same number, each runs ``slowdown[k-1]`` times slower.
    ``hosts[r]``: with k messages on their way out of a host, each takes ``link_contention[k-1]`` times longer.
    ``has_streams``: messages between two ranks move one at a time (see ``dedicated.run_on_streams``).
    """

    cores: Sequence[int]
    slowdown: Sequence[float]
    hosts: Sequence[int]
    link_contention: Sequence[float]
    has_streams: bool = False


def run_contended(
    graph: ActionGraph, seconds: Seconds, delay: Seconds, contention: Contention, started: Seconds | None = None
) -> tuple[Seconds, Seconds]:
    """Start and end of every action; float64[N] each.

    All active ranks of a host advance at one speed, so one work clock serves them all: it shows the undisturbed seconds
    that a rank active from the beginning would have done. An action that starts at work clock c ends when it shows
    c + seconds. Two ranks of 1 s and 2 s on one core (slowdown 1, 2)::

        time        0         1         2         3
        rank 0      |=== 1 s at half speed ==|
        rank 1      |=== 1 s at half speed ==|== 1 s ===|
        work clock  0                        1          2

    The messages that leave a host have such a clock too; each from when it is made, its receive
    is posted, and the one before it on the stream of its two ranks, where they have one, has come.

    ``started[n]``: when the CPU of its rank has started action n, where devices run beside a CPU.
    """
    return _Step(graph, seconds, delay, contention, started).run()


class _SharedResource:
    """The cores of a host, or its uplink, which several users share by a work clock of their own.

    ``ending``: when the next user will be done, if no other begins before; infinity where there is none.
    """

    def __init__(self, slowdown: Sequence[float]) -> None:
        self.slowdown = slowdown
        self.now = self.clock = 0.0
        self.ending = inf
        self.pace = 1.0
        self.users: list[tuple[float, int]] = []  # heap of (work clock at the end, who)

    def begin(self, now: float, who: int, work: float) -> None:
        """From now on this one uses it too."""
        self.clock += (now - self.now) / self.pace
        self.now = now
        heappush(self.users, (self.clock + work, who))
        self._change()

    def end(self) -> int:
        """Advance to when the next user is done, and return it."""
        self.now = self.ending
        self.clock, who = heappop(self.users)
        self._change()
        return who

    def _change(self) -> None:
        if not self.users:
            self.ending = inf
            return
        self.pace = slowdown_with(len(self.users), self.slowdown)
        self.ending = self.now + (self.users[0][0] - self.clock) * self.pace


class _Step:
    """The state between two events: who computes, which messages are under way, who waits."""

    def __init__(
        self, graph: ActionGraph, seconds: Seconds, delay: Seconds, contention: Contention, started: Seconds | None
    ) -> None:
        count = len(seconds)
        self.graph = graph
        self.cores = _each(contention.cores, contention.slowdown)
        self.wires = _wires(graph, contention)
        self.resources = [*dict.fromkeys(one for one in (*self.cores, *self.wires.values()) if one)]
        self.is_wire = set(map(id, self.wires.values()))
        self.undelivered, self.sent_after = set(self.wires), _sent_after(graph, self.wires)
        self.before = before_on_stream(graph) if contention.has_streams else {}
        self.behind = {before: message for message, before in self.before.items()}
        self.producer, self.posted = graph.producer.tolist(), graph.posted.tolist()
        self.work, self.travel = seconds.tolist(), delay.tolist()
        self.started = [0.0] * count if started is None else started.tolist()
        self.startable = [0.0, *self.started[:-1]]  # when the CPU has come to each action
        for first in graph.first[:-1].tolist():
            self.startable[first] = 0.0
        self.stop = graph.first[1:].tolist()
        self.position = graph.first[:-1].tolist()
        self.starts = [0.0] * count
        self.ends = [inf] * count + [0.0]  # the last: what is there from the beginning
        self.now = 0.0
        # heap of (time, what happens then, rank or message), of all that nothing else can slow
        self.coming: list[tuple[float, int, int]] = []
        self.happens = (self._begin, self._end, self._deliver)
        self.waiting: dict[int, int] = {}  # action not yet ended -> rank that waits for it
        self.awaiting: dict[int, int] = {}  # action whose input is not there -> rank that waits for that

    def run(self) -> tuple[Seconds, Seconds]:
        for rank in range(len(self.position)):
            self._begin(rank)
        idle = _SharedResource((1.0,))
        while True:
            first = min(self.resources, key=ENDING, default=idle)
            if self.coming and self.coming[0][0] < first.ending:
                self.now, what, who = heappop(self.coming)
                self.happens[what](who)
            elif not first.users:
                break
            else:
                who, self.now = first.end(), first.now
                self.happens[DELIVERED if id(first) in self.is_wire else ENDED](who)
        if self.waiting or self.awaiting:
            raise self.graph.deadlock(np.array(self.position))
        return np.array(self.starts), np.array(self.ends[:-1])

    def _begin(self, rank: int) -> None:
        """Start the rank's next action, or note what it waits for."""
        index = self.position[rank]
        if index == self.stop[rank]:
            return
        if index in self.undelivered:
            self.awaiting[index] = rank
            return
        made = self.ends[self.producer[index]]
        if made == inf:
            self.waiting[self.producer[index]] = rank
            return
        arrives = max(made, self.ends[self.posted[index]]) + self.travel[index]
        ready = max(self.startable[index], 0.0 if index in self.wires else arrives)
        if ready > self.now:
            heappush(self.coming, (ready, BEGUN, rank))
            return
        self.starts[index] = self.now
        work = max(self.work[index], self.started[index] - self.now)
        self._use(self.cores[rank], work, ENDED, rank)

    def _use(self, resource: _SharedResource | None, work: float, what: int, who: int) -> None:
        """Begin to use what others use too, or what nobody else does."""
        if resource is not None:
            resource.begin(self.now, who, work)
        else:
            heappush(self.coming, (self.now + work, what, who))

    def _end(self, rank: int) -> None:
        """End the rank's action, wake the rank that waits for it, and go on to the next."""
        index = self.position[rank]
        self.ends[index] = self.now
        self.position[rank] += 1
        for message in self.sent_after.get(index, ()):
            self._send_if_ready(message)
        if index in self.waiting:
            self._begin(self.waiting.pop(index))
        self._begin(rank)

    def _send_if_ready(self, message: int) -> None:
        """Called whenever something that it waits for has come; all have, when the last one has."""
        is_posted = max(self.ends[self.producer[message]], self.ends[self.posted[message]]) < inf
        if is_posted and self.before.get(message) not in self.undelivered:
            self._use(self.wires[message], self.travel[message], DELIVERED, message)

    def _deliver(self, message: int) -> None:
        """The input of action ``message`` is there."""
        self.undelivered.remove(message)
        if message in self.behind:
            self._send_if_ready(self.behind[message])
        if message in self.awaiting:
            self._begin(self.awaiting.pop(message))


BEGUN, ENDED, DELIVERED = range(3)  # as in ``_Step.happens``


def _each(numbers: Sequence[int], slowdown: Sequence[float]) -> list[_SharedResource | None]:
    """Return what each of ``numbers`` has, together with those of the same number; None where nothing slows them."""
    if max(slowdown) == 1.0 and len(set(numbers)) == len(numbers):
        return [None] * len(numbers)
    made = {number: _SharedResource(slowdown) for number in numbers}
    return [made[number] for number in numbers]


def _wires(graph: ActionGraph, contention: Contention) -> dict[int, _SharedResource | None]:
    """Return the actions whose input is sent apart, each with its uplink: because messages slow each other on their
    way out of a host, or because two ranks have a stream for them."""
    hosts, ranks = np.asarray(contention.hosts), graph.rank
    received = np.flatnonzero(graph.producer < len(graph.kind))
    giver, taker = ranks[graph.producer[received]], ranks[received]
    out = {
        host: _SharedResource(contention.link_contention)
        for host in contention.hosts
        if max(contention.link_contention) > 1.0
    }
    found: dict[int, _SharedResource | None] = {}
    for n, here, there in zip(received.tolist(), giver.tolist(), taker.tolist(), strict=True):
        wire = out.get(contention.hosts[here]) if hosts[here] != hosts[there] else None
        if here != there and (wire is not None or contention.has_streams):
            found[n] = wire
    return found


def _sent_after(graph: ActionGraph, messages: Iterable[int]) -> Mapping[int, list[int]]:
    """Return by action the inputs that may be sent once it has ended: because it makes the message, or because the
    receive is posted then."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for index in messages:
        for before in {int(graph.producer[index]), int(graph.posted[index])} - {len(graph.kind)}:
            found[before].append(index)
    return found
