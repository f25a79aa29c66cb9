"""The time of a step without its timeline: thousands of ranks and micro-batches in a fraction of a second.

GPipe and 1F1B run through a pipeline like waves through a grid. Numbered in the right way, all actions of one number
(below: of one column) are independent, need only the column before, and lie at regular distances; so one numpy
operation does a whole column, and nothing is kept but the end of each rank's last action. 1F1B, p = 3, m = 4 ::

             0  1  2  3  4  5  6  7  8  9  10 11
    rank 0   F0 .  F1 .  F2 B0 F3 B1 .  B2 .  B3      F(s, i) in column 2i + s
    rank 1   .  F0 .  F1 B0 F2 B1 F3 B2 .  B3 .       B(s, i) in column 2i + 2p-1 - s
    rank 2   .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .

A column is no point in time: how long each action takes, and how long its rank waits, is up to the costs. The sums are
the very ones of the step-by-step simulation, in the same order, so the results are equal to the last bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from autotune.predict.orders import BACKWARD, FORWARD
from autotune.predict.schedules import Schedule, ScheduleError
from autotune.predict.simulator.posting import Receives
from autotune.predict.simulator.simulate import Costs, Seconds, simulate


@dataclass(frozen=True, eq=False)
class StepTime:
    """The totals of a Timeline, under the same names; float64[p], seconds per rank."""

    rank_ends: Seconds
    busy: Seconds

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end of any rank."""
        return float(self.rank_ends.max(initial=0.0))

    @property
    def bubble_fraction(self) -> float:
        """Idle device time inside the step, as a fraction of p x step time."""
        if not self.makespan:
            return 0.0
        return max(
            0.0, 1.0 - float(self.busy.mean()) / self.makespan
        )  # rounding leaves -1e-16 of one that is never idle


def step_time(schedule: Schedule, costs: Costs, receives: Receives = "torch") -> StepTime:
    """Return the totals of ``simulate(schedule, costs, receives)``, for GPipe and 1F1B in O(p) memory; raise
    likewise."""
    columns = COLUMNS.get(schedule.name)
    if columns is None or costs.is_contended or costs.reduction is not None:
        timeline = simulate(schedule, costs, receives)
        return StepTime(timeline.rank_ends, timeline.busy)
    if costs.stages != schedule.stages:
        raise ScheduleError(f"costs are of {costs.stages} stages, the schedule has {schedule.stages}")
    travel = _travel_by_column(schedule, costs, receives)
    ends, late = _run(columns(schedule.ranks, schedule.micro_batches), travel, costs, receives)
    return StepTime(ends, schedule.micro_batches * (costs.work()[FORWARD] + costs.work()[BACKWARD]) + late)


Column = tuple[slice, slice]
"""The stages that run a forward, and the stages that run a backward, side by side."""


def gpipe_columns(p: int, m: int) -> Iterator[Column]:
    """Return F(s, i) in column i + s; after all forwards B(s, i) in column i + p-1 - s."""
    nobody = slice(0, 0)
    for column in range(m + p - 1):
        yield slice(max(0, column - m + 1), min(p, column + 1)), nobody
    for column in range(m + p - 1):
        last = p - 1 - column  # the stage that runs B0, if there is one
        yield nobody, slice(max(0, last), min(p, last + m))


def one_forward_one_backward_columns(p: int, m: int) -> Iterator[Column]:
    """Return F(s, i) in column 2i + s, B(s, i) in column 2i + 2p-1 - s: every other stage forwards, the rest
    backwards."""
    for column in range(2 * (m + p - 1)):
        last = 2 * p - 1 - column
        forward = slice(max(column % 2, column - 2 * (m - 1)), min(p, column + 1), 2)
        yield forward, slice(max((column + 1) % 2, last), min(p, last + 2 * m - 1), 2)


COLUMNS: dict[str, Callable[[int, int], Iterator[Column]]] = {
    "GPipe": gpipe_columns,
    "1F1B": one_forward_one_backward_columns,
}


def _travel_by_column(schedule: Schedule, costs: Costs, receives: Receives) -> Iterator[Seconds]:
    """``travel[kind, stage]`` as it holds in one column after the other; float64[4, p], always the same array.

    1F1B has exchanges (see ``receives.fused``) from where F(s, p-s) stands, in column 2p - s, to where B(s, m-p+s)
    does, in column 2m-1 + s: from column to column one more stage forwards in exchanges, at last one more backwards
    alone.
    """
    (p, m), travel = (schedule.ranks, schedule.micro_batches), costs.travel()
    alone = travel[BACKWARD].copy()
    exchange = costs.exchange() if (schedule.runtime, receives) == ("exchanges", "torch") else travel.copy()
    travel[BACKWARD] = exchange[BACKWARD]
    for column in count():
        if 0 <= 2 * p - column < p:
            travel[FORWARD, 2 * p - column] = exchange[FORWARD, 2 * p - column]
        if 0 <= column - 2 * m < p:
            travel[BACKWARD, column - 2 * m] = alone[column - 2 * m]
        yield travel


def _run(
    columns: Iterator[Column], travels: Iterator[Seconds], costs: Costs, receives: Receives
) -> tuple[Seconds, Seconds]:
    """The end of each rank's last action, and how long its actions in all were begun but not yet started as a
    whole by the CPU; float64[p] each."""
    work, blocking = costs.work(), receives == "torch"
    ends = np.zeros(costs.stages + 2)  # of ranks -1 ... p: the two beyond the pipeline give their input at time 0
    own, before, after = ends[1:-1], ends[:-2], ends[2:]
    host = None if costs.host is None else np.array(costs.host)
    started, late = np.zeros(costs.stages), np.zeros(costs.stages)  # when each CPU has started all actions so far

    def ends_with(kind: int, stages: slice, giver: Seconds, travel: Seconds) -> Seconds:
        if blocking:  # the receive is posted when the rank is free
            start = np.maximum(own[stages], giver[stages]) + travel[kind, stages]
        else:
            start = np.maximum(own[stages], giver[stages] + travel[kind, stages])
        if host is None:
            return start + work[kind, stages]
        start = np.maximum(start, started[stages])
        started[stages] += host[kind, stages]
        wait: Seconds = np.maximum(0.0, started[stages] - start - work[kind, stages])
        late[stages] += wait
        return start + work[kind, stages] + wait

    for (forward, backward), travel in zip(columns, travels, strict=False):
        forward_ends = ends_with(FORWARD, forward, before, travel)
        own[backward] = ends_with(BACKWARD, backward, after, travel)
        own[forward] = forward_ends
    return own, late
