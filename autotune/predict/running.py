"""Two ways to run a program when every rank has a device of its own; their results are equal to the last bit.

Both follow one rule: a message moves when it is made and its receive is posted, whichever comes last ::

    start(n) = max(end of the rank's previous action, max(end of producer[n], end of posted[n]) + delay[n])
"""

from math import inf

import numpy as np
from numpy.typing import NDArray

from autotune.predict.program import Program

Seconds = NDArray[np.float64]

LOCKSTEP_RANKS = 16
"""Beyond this many ranks numpy, all ranks at a time, is faster than plain Python, one action at a time."""


def run(program: Program, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Start and end of every action (float64[N] each), the faster of the two ways."""
    runner = run_in_lockstep if program.schedule.ranks > LOCKSTEP_RANKS else run_in_turn
    return runner(program, seconds, delay)


def run_in_turn(program: Program, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Start and end of every action (float64[N] each), one action at a time: a rank runs until it must wait.

    O(N): a waiting rank is noted at the action it waits for, and goes on when that has ended.
    """
    position, stop = program.first[:-1].tolist(), program.first[1:].tolist()
    producer, posted = program.producer.tolist(), program.posted.tolist()
    work, travel = seconds.tolist(), delay.tolist()
    starts = [0.0] * len(work)
    ends = [inf] * len(work) + [0.0]  # the last: what is there from the beginning
    free = [0.0] * len(position)
    waiting: dict[int, int] = {}
    runnable = list(range(len(position)))
    while runnable:
        rank = runnable.pop()
        now = free[rank]
        for index in range(position[rank], stop[rank]):
            made = ends[producer[index]]
            if made == inf:
                waiting[producer[index]] = rank
                position[rank], free[rank] = index, now
                break
            ready = ends[posted[index]]
            arrived = (made if made > ready else ready) + travel[index]
            if arrived > now:
                now = arrived
            starts[index] = now
            ends[index] = now = now + work[index]
            if index in waiting:
                runnable.append(waiting.pop(index))
        else:
            position[rank] = stop[rank]
    if waiting:
        raise program.deadlock(np.array(position))
    return np.array(starts), np.array(ends[:-1])


def run_in_lockstep(program: Program, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Run all ranks at a time, with the result of ``run_in_turn``: in each round every rank tries its next action.

    An action that is not done ends at infinity, so whoever takes its result would end there too, and that is how a
    rank sees that it must wait. The number of rounds is the length in actions of the longest chain; p wide each.
    """
    ends = np.full(len(seconds) + 1, inf)
    ends[-1] = 0.0  # what is there from the beginning
    position, stop = program.first[:-1].copy(), program.first[1:]
    free = np.zeros(len(position))
    ranks = np.flatnonzero(position < stop)
    while len(ranks):
        at, now = position[ranks], free[ranks]
        for _ in range(int((stop[ranks] - at).min())):  # in so many rounds no rank can run past its end
            moved = np.maximum(ends[program.producer[at]], ends[program.posted[at]])
            end = np.maximum(now, moved + delay[at]) + seconds[at]
            ends[at] = end
            ended = end < inf
            now = np.where(ended, end, now)
            at = at + ended
        if (at == position[ranks]).all():
            raise program.deadlock(position)
        position[ranks], free[ranks] = at, now
        ranks = ranks[at < stop[ranks]]
    before = np.concatenate(([0.0], ends[:-2]))
    before[program.first[:-1]] = 0.0
    moved = np.maximum(ends[program.producer], ends[program.posted])
    return np.maximum(before, moved + delay), ends[:-1]
