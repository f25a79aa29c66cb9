"""Ranks that share a host's cores, and messages that share the network between hosts, simulated exactly: processor
sharing, event by event."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from autotune.predict.program import Program

Seconds = NDArray[np.float64]
ENDING = attrgetter("ending")


def slowdown_with(active: int, slowdown: Sequence[float]) -> float:
    """Return how many times slower each of ``active`` ranks runs; beyond the list in proportion to their number."""
    if active <= len(slowdown):
        return slowdown[active - 1]
    return slowdown[-1] * active / len(slowdown)


@dataclass(frozen=True)
class Sharing:
    """Who shares what, by rank a number for each.

    ``cores[r]``: with k of the ranks active that have the same number, each runs ``slowdown[k-1]`` times slower.
    ``hosts[r]``: with k messages on their way out of a host to others, each takes ``crowding[k-1]`` times longer.
    """

    cores: Sequence[int]
    slowdown: Sequence[float]
    hosts: Sequence[int]
    crowding: Sequence[float]


def run_shared(program: Program, seconds: Seconds, delay: Seconds, sharing: Sharing) -> tuple[Seconds, Seconds]:
    """Start and end of every action; float64[N] each.

    All active ranks of a host advance at one speed, so one work clock serves them all: it shows the undisturbed seconds
    that a rank active from the beginning would have done. An action that starts at work clock c ends when it shows
    c + seconds. Two ranks of 1 s and 2 s on one core (slowdown 1, 2)::

        time        0         1         2         3
        rank 0      |=== 1 s at half speed ==|
        rank 1      |=== 1 s at half speed ==|== 1 s ===|
        work clock  0                        1          2

    The messages that leave a host have such a clock too; each from when it is made and its receive is posted.
    """
    return _Step(program, seconds, delay, sharing).run()


class _Shared:
    """What several users share, by a work clock of their own: the cores of a host, or its way out.

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
        """Goes on to when the next user is done, and returns it."""
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

    def __init__(self, program: Program, seconds: Seconds, delay: Seconds, sharing: Sharing) -> None:
        cores = {number: _Shared(sharing.slowdown) for number in sharing.cores}
        uplinks = {host: _Shared(sharing.crowding) for host in sharing.hosts}
        self.undelivered, self.sent_after = _crossing(program, sharing)
        self.uplinks = list(uplinks.values()) if self.undelivered else []
        self.shared = [*cores.values(), *self.uplinks]
        self.program, self.cores = program, [cores[number] for number in sharing.cores]
        self.uplink = [uplinks[sharing.hosts[rank]] for rank in program.rank.tolist()]  # of each action's host
        self.producer, self.posted = program.producer.tolist(), program.posted.tolist()
        self.work, self.travel = seconds.tolist(), delay.tolist()
        self.stop = program.first[1:].tolist()
        self.position = program.first[:-1].tolist()
        self.starts = [0.0] * len(self.work)
        self.ends = [inf] * len(self.work) + [0.0]  # the last: what is there from the beginning
        self.now = 0.0
        self.arriving: list[tuple[float, int]] = []  # heap of (time of arrival, rank that waits for it)
        self.waiting: dict[int, int] = {}  # action not yet ended -> rank that waits for it
        self.awaiting: dict[int, int] = {}  # action whose input is not there -> rank that waits for that

    def run(self) -> tuple[Seconds, Seconds]:
        for rank in range(len(self.position)):
            self._begin(rank)
        while True:
            first = min(self.shared, key=ENDING)
            if self.arriving and self.arriving[0][0] < first.ending:
                self.now, rank = heappop(self.arriving)
                self._begin(rank)
            elif not first.users:
                break
            else:
                who, self.now = first.end(), first.now
                if first in self.uplinks:
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
                self.uplink[self.producer[message]].begin(self.now, message, self.travel[message])
        if index in self.waiting:
            self._begin(self.waiting.pop(index))

    def _deliver(self, message: int) -> None:
        """The input of action ``message`` is there."""
        self.undelivered.remove(message)
        if message in self.awaiting:
            self._begin(self.awaiting.pop(message))


def _crossing(program: Program, sharing: Sharing) -> tuple[set[int], Mapping[int, list[int]]]:
    """The actions whose input comes from another host, where messages crowd each other; and by action those whose input
    may be sent once that has ended: because it makes the message, or because the receive is posted then."""
    if max(sharing.crowding) == 1.0:
        return set(), {}
    nothing, hosts = len(program.kind), np.asarray(sharing.hosts)
    at = hosts[program.rank]
    received = np.flatnonzero(program.producer < nothing)
    crossing = received[at[program.producer[received]] != at[received]].tolist()
    sent_after: defaultdict[int, list[int]] = defaultdict(list)
    for index in crossing:
        for before in {int(program.producer[index]), int(program.posted[index])} - {nothing}:
            sent_after[before].append(index)
    return set(crossing), sent_after
