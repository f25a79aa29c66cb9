"""The simulator: a schedule and the seconds of its actions -> when every action starts and ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import BACKWARD, FORWARD, INPUT_GRADIENT
from autotune.predict.program import Program, lay_flat
from autotune.predict.running import run_in_lockstep, run_in_turn
from autotune.predict.schedules import Schedule, ScheduleError
from autotune.predict.sharing import run_shared

Seconds = NDArray[np.float64]

LOCKSTEP_RANKS = 16
"""Beyond this many ranks numpy, all ranks at a time, is faster than plain Python, one action at a time."""


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

    def work(self) -> Seconds:
        """float64[4, S]: seconds of an action, by kind and stage."""
        return np.array([self.forward, self.backward, self.input_gradient, self.weight_gradient], np.float64)

    def travel(self) -> Seconds:
        """float64[4, S]: seconds that the input of an action is under way to its stage, by kind and stage."""
        into = np.zeros((4, self.stages))
        into[FORWARD, 1:] = self.activation_link
        into[BACKWARD, :-1] = into[INPUT_GRADIENT, :-1] = self.gradient_link
        return into


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
    if costs.stages != schedule.stages:
        raise ScheduleError(f"costs are of {costs.stages} stages, the schedule has {schedule.stages}")
    program = lay_flat(schedule)
    seconds = costs.work()[program.kind, program.stage]
    delay = costs.travel()[program.kind, program.stage]
    if costs.slowdown is not None:
        return Timeline(program, *run_shared(program, seconds, delay, costs.slowdown))
    run = run_in_lockstep if schedule.ranks > LOCKSTEP_RANKS else run_in_turn
    return Timeline(program, *run(program, seconds, delay))
