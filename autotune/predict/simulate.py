"""The simulator: a schedule and the seconds of its actions -> when every action starts and ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import FORWARD, WEIGHT_GRADIENT
from autotune.predict.program import Program, lay_flat
from autotune.predict.schedules import Schedule, ScheduleError
from autotune.predict.sharing import run_shared

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Seconds of one micro-batch; lists are indexed by stage (S entries) or boundary (S-1 entries).

    ``backward`` is the fused backward (B); ``input_gradient`` (I) and ``weight_gradient`` (W) its two halves.
    ``activation_link[s]`` and ``gradient_link[s]``: a message is under way between stages s and s+1, forward and back;
    no core is used meanwhile. Zero where both stages sit on the same rank.
    ``slowdown[k-1]``: with k ranks computing at once each runs that many times slower (ranks that share a host's
    cores). Beyond the list it grows in proportion to k. None: every rank has a device of its own.
    """

    forward: Sequence[float]
    backward: Sequence[float]
    input_gradient: Sequence[float]
    weight_gradient: Sequence[float]
    activation_link: Sequence[float]
    gradient_link: Sequence[float]
    slowdown: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuses lists of unequal length."""
        stages = len(self.forward)
        per_stage = (self.backward, self.input_gradient, self.weight_gradient)
        per_boundary = (self.activation_link, self.gradient_link)
        if any(len(row) != stages for row in per_stage) or any(len(row) != stages - 1 for row in per_boundary):
            raise ValueError(
                f"costs of {stages} stages need {stages} entries per kind of action, {stages - 1} per link"
            )

    @property
    def stages(self) -> int:
        """S, the number of stages."""
        return len(self.forward)


@dataclass(frozen=True, eq=False)
class Timeline:
    """When every action of one step runs. ``starts`` and ``ends``: float64[N], laid flat as in ``program``."""

    program: Program
    starts: Seconds
    ends: Seconds

    @property
    def schedule(self) -> Schedule:
        """The schedule that was run."""
        return self.program.schedule

    def start(self, rank: int) -> Seconds:
        """When each action of the rank starts, in the order of ``schedule.actions(rank)``."""
        return self.starts[self.program.first[rank] : self.program.first[rank + 1]]

    def end(self, rank: int) -> Seconds:
        """When each action of the rank ends."""
        return self.ends[self.program.first[rank] : self.program.first[rank + 1]]

    @cached_property
    def makespan(self) -> float:
        """Seconds from the first start to the last end of any rank."""
        return float(self.ends.max(initial=0.0))

    @cached_property
    def busy(self) -> Seconds:
        """float64[p]: seconds that each rank computes, slowed down by the others where they share cores."""
        return np.array([(self.end(rank) - self.start(rank)).sum() for rank in range(self.schedule.ranks)])

    @property
    def idle(self) -> Seconds:
        """float64[p]: seconds of the step that each rank does not compute."""
        return self.makespan - self.busy

    @property
    def bubble_fraction(self) -> float:
        """Idle device time inside the step, as a fraction of p x step time."""
        return float(self.idle.mean() / self.makespan) if self.makespan else 0.0

    def critical_path(self) -> list[int]:
        """The chain of actions (indices into ``program``) that ends last; none could start before its predecessor.

        An action follows either the previous one of its rank or the one whose message it took, whichever came last.
        """
        path = [int(self.ends.argmax())]
        while self.starts[path[-1]] > 0:
            index = path[-1]
            producer = int(self.program.producer[index])
            previous = index - 1 if index not in self.program.first else None
            if previous is not None and (producer == len(self.ends) or self.ends[previous] == self.starts[index]):
                path.append(previous)
            else:
                path.append(producer)
        return path[::-1]


def simulate(schedule: Schedule, costs: Costs) -> Timeline:
    """Runs a schedule on paper; raises ScheduleError if it can never finish, naming who waits for what.

    An action starts when its rank is free and its input has arrived: start = max(end before it, producer's end + link).
    """
    program = lay_flat(schedule)
    seconds, delay = durations(program, costs)
    if costs.slowdown is None:
        starts, ends = run_in_turn(program, seconds, delay)
    else:
        starts, ends = run_shared(program, seconds, delay, costs.slowdown)
    return Timeline(program, starts, ends)


def durations(program: Program, costs: Costs) -> tuple[Seconds, Seconds]:
    """Returns for every action its seconds, and the seconds its message is under way; both float64[N]."""
    if costs.stages != program.schedule.stages:
        raise ScheduleError(f"costs are of {costs.stages} stages, the schedule has {program.schedule.stages}")
    by_kind = np.array([costs.forward, costs.backward, costs.input_gradient, costs.weight_gradient], np.float64)
    link = np.zeros((4, costs.stages))
    link[FORWARD, 1:] = costs.activation_link
    link[FORWARD + 1 : WEIGHT_GRADIENT, :-1] = costs.gradient_link
    return by_kind[program.kind, program.stage], link[program.kind, program.stage]


def run_in_turn(program: Program, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Start and end of every action, one action at a time: each rank runs until it must wait for another.

    O(N): a waiting rank is noted at the action it waits for, and goes on when that has ended.
    """
    position, stop = program.first[:-1].tolist(), program.first[1:].tolist()
    producer, work, travel = program.producer.tolist(), seconds.tolist(), delay.tolist()
    starts = [0.0] * len(work)
    ends: list[float | None] = [None] * len(work) + [0.0]  # the last: an input that is there from the beginning
    free = [0.0] * len(position)
    waiting: dict[int, int] = {}
    runnable = list(range(len(position)))
    while runnable:
        rank = runnable.pop()
        now = free[rank]
        for index in range(position[rank], stop[rank]):
            made = ends[producer[index]]
            if made is None:
                waiting[producer[index]] = rank
                position[rank], free[rank] = index, now
                break
            arrival = made + travel[index]
            now = max(now, arrival)
            starts[index] = now
            ends[index] = now = now + work[index]
            if index in waiting:
                runnable.append(waiting.pop(index))
        else:
            position[rank] = stop[rank]
    if waiting:
        raise program.deadlock(np.array(position))
    return np.array(starts), np.array(ends[:-1], np.float64)
