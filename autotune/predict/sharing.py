"""Ranks that share a host's cores, and messages that share the network between hosts, simulated exactly: processor
sharing, event by event."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import FORWARD
from autotune.predict.program import Program

Seconds = NDArray[np.float64]


def slowdown_with(active: int, slowdown: Sequence[float]) -> float:
    """How many times slower each of ``active`` ranks runs; beyond the list in proportion to their number."""
    if active <= len(slowdown):
        return slowdown[active - 1]
    return slowdown[-1] * active / len(slowdown)


@dataclass(frozen=True)
class Sharing:
    """Who shares what. ``hosts[r]``: a number for the host of rank r, with k of whose ranks active each runs
    ``slowdown[k-1]`` times slower. ``between[s]``: messages between stages s and s+1 pass the network between hosts,
    where each of k takes ``crowding[k-1]`` times longer."""

    hosts: Sequence[int]
    slowdown: Sequence[float]
    between: Sequence[bool] = ()
    crowding: Sequence[float] = ()


def run_shared(program: Program, seconds: Seconds, delay: Seconds, sharing: Sharing) -> tuple[Seconds, Seconds]:
    """Start and end of every action; float64[N] each.

    All active ranks of a host advance at one speed, so one work clock serves them all: it shows the undisturbed seconds
    that a rank active from the beginning would have done. An action that starts at work clock c ends when it shows
    c + seconds. Two ranks of 1 s and 2 s on one core (slowdown 1, 2)::

        time        0         1         2         3
        rank 0      |=== 1 s at half speed ==|
        rank 1      |=== 1 s at half speed ==|== 1 s ===|
        work clock  0                        1          2

    Messages between hosts have such a clock too, from when they are made and their receive is posted.
    """
    return _Step(program, seconds, delay, sharing).run()


class _Shared:
    """What several users share, by a work clock of their own: the cores of a host, or the network between hosts."""

    def __init__(self, slowdown: Sequence[float], most: int) -> None:
        self.pace = [1.0, *(slowdown_with(active, slowdown) for active in range(1, most + 1))]
        self.now = self.clock = 0.0
        self.users: list[tuple[float, int]] = []  # heap of (work clock at the end, who)

    @property
    def ending(self) -> float:
        """When the next user will be done, if no other begins before."""
        if not self.users:
            return inf
        return self.now + (self.users[0][0] - self.clock) * self.pace[len(self.users)]

    def begin(self, now: float, who: int, work: float) -> None:
        """From now on this one uses it too."""
        if self.users:
            self.clock += (now - self.now) / self.pace[len(self.users)]
        self.now = now
        heappush(self.users, (self.clock + work, who))

    def end(self) -> int:
        """Goes on to when the next user is done, and returns it."""
        self.now = self.ending
        self.clock, who = heappop(self.users)
        return who


class _Step:
    """The state between two events: who computes, which messages are under way, who waits."""

    def __init__(self, program: Program, seconds: Seconds, delay: Seconds, sharing: Sharing) -> None:
        ranks = program.schedule.ranks
        cores = {host: _Shared(sharing.slowdown, ranks) for host in sharing.hosts}
        self.program, self.cores = program, [cores[host] for host in sharing.hosts]
        self.producer, self.posted = program.producer.tolist(), program.posted.tolist()
        self.work, self.travel = seconds.tolist(), delay.tolist()
        self.stop = program.first[1:].tolist()
        self.position = program.first[:-1].tolist()
        self.starts = [0.0] * len(self.work)
        self.ends = [inf] * len(self.work) + [0.0]  # the last: what is there from the beginning
        self.now = 0.0
        self.arriving: list[tuple[float, int]] = []  # heap of (time of arrival, rank that waits for it)
        self.waiting: dict[int, int] = {}  # action not yet ended -> rank that waits for it
        self.network = _Shared(sharing.crowding or (1.0,), len(self.work))
        self.shared = [*cores.values(), self.network]
        self.undelivered, self.sent_after = _crossing(program, sharing)
        self.awaiting: dict[int, int] = {}  # action whose input is not there -> rank that waits for that

    def run(self) -> tuple[Seconds, Seconds]:
        for rank in range(len(self.position)):
            self._begin(rank)
        while True:
            first = min(self.shared, key=lambda one: one.ending)
            if self.arriving and self.arriving[0][0] < first.ending:
                self.now, rank = heappop(self.arriving)
                self._begin(rank)
            elif not first.users:
                break
            else:
                who, self.now = first.end(), first.now
                if first is self.network:
                    self._deliver(who)
                else:
                    self._end(who)
                    self._begin(who)
        if self.waiting or self.awaiting:
            raise self.program.deadlock(np.array(self.position))
        return np.array(self.starts), np.array(self.ends[:-1])

    def _begin(self, rank: int) -> None:
        """Starts the rank's next action, or notes what it waits for."""
        index = self.position[rank]
        if index == self.stop[rank]:
            return
        if index in self.undelivered:
            self.awaiting[index] = rank
            return
        made = self.ends[self.producer[index]]
        arrives = max(made, self.ends[self.posted[index]]) + self.travel[index]
        if made == inf:
            self.waiting[self.producer[index]] = rank
        elif arrives > self.now:
            heappush(self.arriving, (arrives, rank))
        else:
            self.starts[index] = self.now
            self.cores[rank].begin(self.now, rank, self.work[index])

    def _end(self, rank: int) -> None:
        """Ends the rank's action and wakes the rank that waits for it."""
        index = self.position[rank]
        self.ends[index] = self.now
        self.position[rank] += 1
        for message in self.sent_after.get(index, ()):
            if max(self.ends[self.producer[message]], self.ends[self.posted[message]]) < inf:
                self.network.begin(self.now, message, self.travel[message])
        if index in self.waiting:
            self._begin(self.waiting.pop(index))

    def _deliver(self, message: int) -> None:
        """The input of action ``message`` is there."""
        self.undelivered.remove(message)
        if message in self.awaiting:
            self._begin(self.awaiting.pop(message))


def _crossing(program: Program, sharing: Sharing) -> tuple[set[int], Mapping[int, list[int]]]:
    """The actions whose input crosses the network between hosts, where messages crowd it; and by action those whose
    input may be sent once that has ended: because it makes the message, or because the receive is posted then."""
    if not sharing.crowding:
        return set(), {}
    nothing = len(program.kind)
    boundary = np.where(program.kind == FORWARD, program.stage - 1, program.stage)
    received = np.flatnonzero(program.producer < nothing)
    crossing = received[np.asarray(sharing.between, np.bool_)[boundary[received]]].tolist()
    sent_after: defaultdict[int, list[int]] = defaultdict(list)
    for index in crossing:
        for before in {int(program.producer[index]), int(program.posted[index])} - {nothing}:
            sent_after[before].append(index)
    return set(crossing), sent_after
