"""When each rank is ready to receive: what torch's runtime does about messages that could overlap with computing.

A message moves once both sides have posted it (gloo's sends wait for their receive, so do NCCL's kernels). Sends are
posted as soon as their action ends. For receives there are three disciplines ::

    early      at the beginning of the step: what papers assume
    blocking   GPipe, 1F1B: when the rank has ended its previous action, and it waits right there
    lowered    all others, hand-made orders too: where torch's ``_add_send_recv`` put it into the row of the rank

Blocking, 1F1B. Between warm-up and cool-down a rank fuses its send with the receive of its next action, waits for
both, and so does its neighbour the other way round ::

    rank s      F(s, i)       <- send F(s, i), receive B(s+1, k) ->        B(s, k)
    rank s+1    B(s+1, k)     <- send B(s+1, k), receive F(s, i) ->        F(s+1, i)

Each receive is posted when the rank's own action has ended, and that action is the other message's producer: both
messages begin at max(end of F(s, i), end of B(s+1, k)), which is the blocking rule for either of them. The wait for
both only adds that both last as long as the slower one (``exchanged``).

In warm-up and cool-down a rank also waits, after an action, for the send of the one before. That may hold back
forwards of its warm-up or backwards of its cool-down, but never the step: the wait ends when the neighbour has received
and so begins to compute, and only after another action will the neighbour ask for what the rank computes next; if that
comes late all the same, the rank is the slower of the two and had not been waiting. Tests run torch's own code, with
these waits, against this rule: all other actions, and the step, are equal to the last bit.

Messages between two ranks share the wire; that is left out. Under NCCL they also share a stream: the multi-stage
runtime posts each send and receive by itself, for which ProcessGroupNCCL keeps one communicator of two ranks, with one
stream on either side for both directions. They move one after the other, in the order in which the lowering placed them
(``dedicated.run_on_streams``): a receive that is posted early holds up all that is sent to that rank later. The
blocking runtimes post nothing early, but for sends that the next action does not need.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import BACKWARD, FORWARD
from autotune.predict.schedules import Schedule
from autotune.predict.simulator.dedicated import run
from autotune.predict.simulator.graph import ActionGraph, Ints, flatten

Receives = Literal["torch", "early"]

UNSHARDED = 3
"""The most stages of a rank that torch keeps unsharded (``max_active_stages`` of ``_add_unshard_reshard``)."""

Rounds = NDArray[np.int64]


@lru_cache(maxsize=1)
def graph_of(schedule: Schedule, receives: Receives) -> ActionGraph:
    """Return the schedule flattened, its receives posted; the last one is kept, as the same schedule is often run
    again.

    Raises ScheduleError for orders that lack an input and, with torch's receives, for those that deadlock.
    """
    graph = flatten(schedule)
    if receives == "early":
        return graph
    return lowered(graph) if schedule.runtime == "lowered" else blocking(graph)


def fused(p: int, m: int, kind: int, stage: Ints, micro_batch: Ints) -> NDArray[np.bool_]:
    """Return whether 1F1B receives the input of these forwards (or backwards) in an exchange, beside a send; bool[n].

    F(s, i) is past its p - s warm-up forwards; B(s, k) stands beside the send of F(s, p-s-1 + k), if that exists.
    """
    return micro_batch >= p - stage if kind == FORWARD else micro_batch <= m - p + stage


def blocking(graph: ActionGraph) -> ActionGraph:
    """Post each receive when the previous action of its rank has ended."""
    count, (p, m) = len(graph.kind), (graph.schedule.ranks, graph.schedule.micro_batches)
    previous = np.arange(-1, count - 1, dtype=np.int32)
    previous[graph.first[:-1]] = count
    previous[graph.producer == count] = count
    if graph.schedule.runtime != "exchanges":
        return replace(graph, posted=previous)
    forward, backward = (fused(p, m, kind, graph.stage, graph.micro_batch) for kind in (FORWARD, BACKWARD))
    exchanged = np.where(graph.kind == FORWARD, forward, backward) & (graph.producer < count)
    return replace(graph, posted=previous, exchanged=exchanged)


def lowered(graph: ActionGraph) -> ActionGraph:
    """Post each receive behind the actions that torch's lowering had placed when it placed the producer.

    Torch goes through the ranks over and over, 0 to p-1, and places the next action of each if its message has been
    sent; a send puts its receive at the end of the other rank's row as it is just then. So x stands before the
    receive of n if the round of x is lower than the producer's, or equal and the rank lower. The messages of an
    overlapped pair are sent when both its actions have ended.
    """
    graph = replace(graph, producer=_sent_after(graph))
    count, own = len(graph.kind), graph.rank
    received = np.flatnonzero(graph.producer < count)
    producer, receiver = graph.producer[received], own[received]
    remote = own[producer] != receiver
    received, producer, receiver = received[remote], producer[remote], receiver[remote]
    rounds = _rounds(graph, own)
    behind = rounds[producer] + (receiver < own[producer])  # the first round whose actions come after the receive
    span = int(rounds.max(initial=0)) + 2
    before = np.searchsorted(own * np.int64(span) + rounds, receiver * np.int64(span) + behind) - 1
    posted = graph.posted.copy()
    posted[received] = np.where(before >= graph.first[receiver], before, count)
    return replace(graph, posted=posted, rounds=rounds)


def overlapped(graph: ActionGraph) -> NDArray[np.int64]:
    """Return the first actions of DualPipeV's overlapped pairs: a forward and the full backward right behind it.

    But for the first such pair of the last rank, which torch runs as two actions "to further reduce bubble size".
    """
    if graph.schedule.name != "DualPipeV":
        return np.zeros(0, np.int64)
    pairs = np.flatnonzero((graph.kind[:-1] == FORWARD) & (graph.kind[1:] == BACKWARD))
    return np.delete(pairs, np.searchsorted(pairs, graph.first[-2]))


def _sent_after(graph: ActionGraph) -> Ints:
    """``producer``, but where that is the first of an overlapped pair, the second."""
    sent = np.arange(len(graph.kind) + 1, dtype=np.int32)
    sent[overlapped(graph)] += 1
    return sent[graph.producer]


def _rounds(graph: ActionGraph, own: Ints) -> Rounds:
    """The round in which torch's lowering places each action; int64[N], never falling along a rank.

    ::

        round(n) = max(round(action before) + 1, round(producer) + 1 if its rank is higher, else + 0)

    which is a run of the graph: every action takes 1 round, a message down the ranks -1 and one up 0. The actions
    that torch adds for sharded stages take rounds too, but only of their own rank: the message is sent before them.
    """
    count, pairs = len(graph.kind), overlapped(graph)
    opening, added = _added_actions(graph)
    work = np.ones(count) + added
    work[pairs] -= 1  # an overlapped pair takes one round, and needs both inputs to begin
    has_input = np.flatnonzero(graph.producer < count)
    producer = graph.producer[has_input]
    giver, taker = own[producer], own[has_input]
    delay = np.zeros(count)
    delay[has_input] = opening[giver] - opening[taker] - added[producer] - (giver < taker)
    _, ends = run(graph, work, delay)
    rounds = (ends - added).astype(np.int64) + opening[own]
    rounds[pairs] = rounds[pairs + 1]
    return rounds


def _added_actions(graph: ActionGraph) -> tuple[Rounds, Rounds]:
    """The number of actions that torch adds before the first one of each rank, int64[p], and after each action,
    int64[N].

    It keeps the next three stages of a rank unsharded. An action is followed by a REDUCE_GRAD if it is the last of its
    stage; by a RESHARD of its stage if three others, or nothing of it, come before it is needed again; and then by
    an UNSHARD of the third other stage, if there is one.
    """
    opening = np.zeros(graph.schedule.ranks, np.int64)
    added = np.zeros(len(graph.kind), np.int64)
    stage_ranks = np.array(graph.schedule.stage_ranks)
    for rank in range(graph.schedule.ranks):
        row = slice(graph.first[rank], graph.first[rank + 1])
        stages = np.flatnonzero(stage_ranks == rank)[:, None]
        opening[rank] = min(UNSHARDED, len(stages))
        is_own = graph.stage[row] == stages  # bool[v, n]
        length = is_own.shape[1]
        upcoming = np.full((len(stages), length + 1), length)  # where each stage comes next, at or after a position
        upcoming[:, :-1][is_own] = np.nonzero(is_own)[1]
        upcoming = np.minimum.accumulate(upcoming[:, ::-1], axis=1)[:, ::-1][:, 1:]
        again = np.where(is_own, upcoming, 0).sum(axis=0)
        last, crowded = again == length, (upcoming < again).sum(axis=0) >= UNSHARDED
        added[row] = 1 * last + (last | crowded) + crowded
    return opening, added
