"""Ranks that share a host's cores, simulated exactly: processor sharing, event by event."""

from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf

import numpy as np
from numpy.typing import NDArray

from autotune.predict.program import Program

Seconds = NDArray[np.float64]


def slowdown_with(active: int, slowdown: Sequence[float]) -> float:
    """How many times slower each of ``active`` ranks runs; beyond the list in proportion to their number."""
    if active <= len(slowdown):
        return slowdown[active - 1]
    return slowdown[-1] * active / len(slowdown)


def run_shared(
    program: Program, seconds: Seconds, delay: Seconds, slowdown: Sequence[float], hosts: Sequence[int] | None = None
) -> tuple[Seconds, Seconds]:
    """Start and end of every action when k active ranks of a host each run ``slowdown[k-1]`` times slower; float64[N]
    each. ``hosts``: a number for each rank's host; None: all ranks are on one.

    All active ranks of a host advance at one speed, so one work clock serves them all: it shows the undisturbed seconds
    that a rank active from the beginning would have done. An action that starts at work clock c ends when it shows
    c + seconds. Two ranks of 1 s and 2 s on one core (slowdown 1, 2)::

        time        0         1         2         3
        rank 0      |=== 1 s at half speed ==|
        rank 1      |=== 1 s at half speed ==|== 1 s ===|
        work clock  0                        1          2
    """
    ranks = program.schedule.ranks
    pace = [1.0, *(slowdown_with(active, slowdown) for active in range(1, ranks + 1))]
    known = {host: _Cores(pace) for host in hosts or (0,)}
    return _Step(program, seconds, delay, [known[host] for host in hosts or (0,) * ranks]).run()


class _Cores:
    """The cores that the ranks of one host share: who computes until when, by the host's own work clock."""

    def __init__(self, pace: list[float]) -> None:
        self.pace = pace
        self.now = self.clock = 0.0
        self.computing: list[tuple[float, int]] = []  # heap of (work clock at the end, rank)

    @property
    def ending(self) -> float:
        """When the next rank will be done, if no other begins before."""
        if not self.computing:
            return inf
        return self.now + (self.computing[0][0] - self.clock) * self.pace[len(self.computing)]

    def begin(self, now: float, rank: int, work: float) -> None:
        """The rank computes from now on."""
        if self.computing:
            self.clock += (now - self.now) / self.pace[len(self.computing)]
        self.now = now
        heappush(self.computing, (self.clock + work, rank))

    def end(self) -> int:
        """Goes on to when the next rank is done, and returns it."""
        self.now = self.ending
        self.clock, rank = heappop(self.computing)
        return rank


class _Step:
    """The state between two events: who computes, which messages are under way, who waits. ``cores``: by rank."""

    def __init__(self, program: Program, seconds: Seconds, delay: Seconds, cores: list[_Cores]) -> None:
        self.program, self.cores = program, cores
        self.all_cores = list({id(one): one for one in cores}.values())
        self.producer, self.posted = program.producer.tolist(), program.posted.tolist()
        self.work, self.travel = seconds.tolist(), delay.tolist()
        self.stop = program.first[1:].tolist()
        self.position = program.first[:-1].tolist()
        self.starts = [0.0] * len(self.work)
        self.ends = [inf] * len(self.work) + [0.0]  # the last: what is there from the beginning
        self.now = 0.0
        self.arriving: list[tuple[float, int]] = []  # heap of (time of arrival, rank that waits for it)
        self.waiting: dict[int, int] = {}  # action not yet ended -> rank that waits for it

    def run(self) -> tuple[Seconds, Seconds]:
        for rank in range(len(self.position)):
            self._begin(rank)
        while True:
            first = min(self.all_cores, key=lambda cores: cores.ending)
            if self.arriving and self.arriving[0][0] < first.ending:
                self.now, rank = heappop(self.arriving)
            elif first.computing:
                rank = first.end()
                self.now = first.now
                self._end(rank)
            else:
                break
            self._begin(rank)
        if self.waiting:
            raise self.program.deadlock(np.array(self.position))
        return np.array(self.starts), np.array(self.ends[:-1])

    def _begin(self, rank: int) -> None:
        """Starts the rank's next action, or notes what it waits for."""
        index = self.position[rank]
        if index == self.stop[rank]:
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
        if index in self.waiting:
            self._begin(self.waiting.pop(index))
