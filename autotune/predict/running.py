"""Two ways to run a program when every rank has a device of its own; their results are equal to the last bit."""

import numpy as np
from numpy.typing import NDArray

from autotune.predict.program import Program

Seconds = NDArray[np.float64]


def run_in_turn(program: Program, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Start and end of every action (float64[N] each), one action at a time: a rank runs until it must wait.

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
            now = max(now, made + travel[index])
            starts[index] = now
            ends[index] = now = now + work[index]
            if index in waiting:
                runnable.append(waiting.pop(index))
        else:
            position[rank] = stop[rank]
    if waiting:
        raise program.deadlock(np.array(position))
    return np.array(starts), np.array(ends[:-1], np.float64)


def run_in_lockstep(program: Program, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """The same as ``run_in_turn``, all ranks at a time: in each round every rank tries its next action.

    An action that is not done ends at infinity, so whoever takes its result would end there too, and that is how a
    rank sees that it must wait. The number of rounds is the length in actions of the longest chain; p wide each.
    """
    ends = np.full(len(seconds) + 1, np.inf)
    ends[-1] = 0.0  # an input that is there from the beginning
    position, stop = program.first[:-1].copy(), program.first[1:]
    free = np.zeros(len(position))
    ranks = np.flatnonzero(position < stop)
    while len(ranks):
        at, now = position[ranks], free[ranks]
        for _ in range(int((stop[ranks] - at).min())):  # in so many rounds no rank can run past its end
            end = np.maximum(now, ends[program.producer[at]] + delay[at]) + seconds[at]
            ends[at] = end
            ended = end < np.inf
            now = np.where(ended, end, now)
            at = at + ended
        if (at == position[ranks]).all():
            raise program.deadlock(position)
        position[ranks], free[ranks] = at, now
        ranks = ranks[at < stop[ranks]]
    before = np.concatenate(([0.0], ends[:-2]))
    before[program.first[:-1]] = 0.0
    return np.maximum(before, ends[program.producer] + delay), ends[:-1]
