"""Ways to run a graph when every rank has a device of its own; the first two give equal results to the last bit.

They follow one rule: a message moves when it is made and its receive is posted, whichever comes last ::

    start(n) = max(end of the rank's previous action, max(end of producer[n], end of posted[n]) + delay[n])
"""

from collections import defaultdict
from math import inf

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import FORWARD
from autotune.predict.simulator.graph import ActionGraph

Seconds = NDArray[np.float64]

VECTORISED_RANKS = 16
"""Beyond this many ranks numpy, all ranks at a time, is faster than plain Python, one action at a time."""


def run(graph: ActionGraph, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Start and end of every action (float64[N] each), the faster of the two ways."""
    runner = run_vectorised if graph.schedule.ranks > VECTORISED_RANKS else run_sequential
    return runner(graph, seconds, delay)


def run_sequential(graph: ActionGraph, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Start and end of every action (float64[N] each), one action at a time: a rank runs until it must wait.

    O(N): a waiting rank is noted at the action it waits for, and goes on when that has ended.
    """
    position, stop = graph.first[:-1].tolist(), graph.first[1:].tolist()
    producer, posted = graph.producer.tolist(), graph.posted.tolist()
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
        raise graph.deadlock(np.array(position))
    return np.array(starts), np.array(ends[:-1])


def run_vectorised(graph: ActionGraph, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Run all ranks at a time, with the result of ``run_sequential``: in each round every rank tries its next action.

    An action that is not done ends at infinity, so whoever takes its result would end there too, and that is how a
    rank sees that it must wait. The number of rounds is the length in actions of the longest chain; p wide each.
    """
    ends = np.full(len(seconds) + 1, inf)
    ends[-1] = 0.0  # what is there from the beginning
    position, stop = graph.first[:-1].copy(), graph.first[1:]
    free = np.zeros(len(position))
    ranks = np.flatnonzero(position < stop)
    while len(ranks):
        at, now = position[ranks], free[ranks]
        for _ in range(int((stop[ranks] - at).min())):  # in these rounds no rank can run past its end
            moved = np.maximum(ends[graph.producer[at]], ends[graph.posted[at]])
            end = np.maximum(now, moved + delay[at]) + seconds[at]
            ends[at] = end
            ended = end < inf
            now = np.where(ended, end, now)
            at = at + ended
        if (at == position[ranks]).all():
            raise graph.deadlock(position)
        position[ranks], free[ranks] = at, now
        ranks = ranks[at < stop[ranks]]
    before = np.concatenate(([0.0], ends[:-2]))
    before[graph.first[:-1]] = 0.0
    moved = np.maximum(ends[graph.producer], ends[graph.posted])
    return np.maximum(before, moved + delay), ends[:-1]


def messages_as_placed(graph: ActionGraph) -> list[int]:
    """Return the actions that another rank sends their input to, in the order in which torch's lowering placed these
    messages: where the producer was placed; of an overlapped pair the forward's first."""
    assert graph.rounds is not None, "only what torch lowers has an order of placement"
    received = np.flatnonzero(graph.producer < len(graph.kind))
    producer = graph.producer[received]
    remote = graph.rank[producer] != graph.rank[received]
    received, producer = received[remote], producer[remote]
    order = np.lexsort((graph.kind[received] != FORWARD, graph.rank[producer], graph.rounds[producer]))
    found: list[int] = received[order].tolist()
    return found


def before_on_stream(graph: ActionGraph) -> dict[int, int]:
    """Return for each message, by the action that takes it, the one before it between the same two ranks."""
    found, last = dict[int, int](), dict[tuple[int, int], int]()
    for index in messages_as_placed(graph):
        giver, taker = int(graph.rank[graph.producer[index]]), int(graph.rank[index])
        pair = (min(giver, taker), max(giver, taker))
        if pair in last:
            found[index] = last[pair]
        last[pair] = index
    return found


def run_on_streams(graph: ActionGraph, seconds: Seconds, delay: Seconds) -> tuple[Seconds, Seconds]:
    """Return start and end of every action of a lowered graph where messages between two ranks move one at a time, in
    the order in which torch placed them, as on the stream that NCCL keeps for the pair ::

        moves(n) = max(end of producer[n], end of posted[n], end of the pair's message before)

    In the order of placement an action comes after all that it needs, and a message where its producer comes.
    """
    assert graph.rounds is not None, "only what torch lowers has an order of placement"
    count, ranks = len(graph.kind), graph.rank.tolist()
    producer, posted, work, travel = (x.tolist() for x in (graph.producer, graph.posted, seconds, delay))
    taken: defaultdict[int, list[int]] = defaultdict(list)
    for index in messages_as_placed(graph):
        taken[producer[index]].append(index)
    starts, ends, arrived = [0.0] * count, [0.0] * (count + 1), [0.0] * count
    free, stream = [0.0] * graph.schedule.ranks, defaultdict[tuple[int, int], float](float)
    for index in np.lexsort((graph.rank, graph.rounds)).tolist():
        rank = ranks[index]
        starts[index] = max(free[rank], arrived[index])
        ends[index] = free[rank] = starts[index] + work[index]
        for taker in taken.get(index, ()):
            pair = (min(rank, ranks[taker]), max(rank, ranks[taker]))
            moves = max(ends[index], ends[posted[taker]], stream[pair])
            arrived[taker] = stream[pair] = moves + travel[taker]
    return np.array(starts), np.array(ends[:-1])
