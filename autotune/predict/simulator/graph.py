"""A schedule as a graph: one long row of actions, and for each the action whose message it waits for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotune.predict.orders import BACKWARD, FORWARD, INPUT_GRADIENT, KINDS, WEIGHT_GRADIENT
from autotune.predict.schedules import Schedule, ScheduleError

Ints = NDArray[np.int32]
ABSENT = -1


@dataclass(frozen=True, eq=False)
class ActionGraph:
    """All actions of a schedule, rank after rank; N in total.

    ``first[r]:first[r + 1]`` are the actions of rank r in order; ``kind``, ``stage``, ``micro_batch`` their columns.
    ``producer[n]`` is the action of a neighbouring stage whose result action n takes, or N where it takes none::

        F(s, i)          takes  F(s-1, i)
        B(s, i), I(s, i) take   B or I(s+1, i)       and, on their own rank, F(s, i)
        W(s, i)                                          on its own rank, I(s, i)

    What an action needs of its own rank needs no waiting, only the right order, and is checked here once.

    ``posted[n]`` is the action of n's own rank at whose end the receive of n's input is posted, or N where that is done
    from the beginning; ``exchanged[n]``: that message and one the other way are waited for together. As flattened, all
    receives are early; what torch does about them is filled in by ``posting``. ``rounds[n]``: the
    round in which torch's lowering places the action, ranks in turn; None where torch lowers nothing.
    """

    schedule: Schedule
    first: NDArray[np.int64]
    kind: NDArray[np.int8]
    stage: Ints
    micro_batch: Ints
    producer: Ints
    posted: Ints
    exchanged: NDArray[np.bool_]
    rounds: NDArray[np.int64] | None = None

    @cached_property
    def rank(self) -> Ints:
        """The rank of each action."""
        return np.repeat(np.arange(self.schedule.ranks, dtype=np.int32), np.diff(self.first))

    def label(self, index: int) -> str:
        """Return ``B1 on stage 2``."""
        return f"{KINDS[self.kind[index]]}{self.micro_batch[index]} on stage {self.stage[index]}"

    def waits(self, index: int) -> str:
        """Return ``B1 on stage 2 waits for B1 of stage 3``."""
        return f"{self.label(index)} waits for {self.label(int(self.producer[index])).replace(' on ', ' of ')}"

    def deadlock(self, position: NDArray[np.int64]) -> ScheduleError:
        """Return the error for ranks that all wait; ``position[r]`` is the action rank r cannot start, or its end."""
        stuck = [self.waits(int(at)) for at, stop in zip(position, self.first[1:], strict=True) if at < stop]
        return ScheduleError(f"deadlock in {self.schedule.name}: " + "; ".join(stuck))


def flatten(schedule: Schedule) -> ActionGraph:
    """Lay a schedule flat, receives early; raise ScheduleError that names every action that lacks what it
    needs."""
    orders = [schedule.order(rank) for rank in range(schedule.ranks)]
    kind, stage, micro_batch = (np.concatenate(columns) for columns in zip(*orders, strict=True))
    first = np.cumsum([0, *(len(order.kind) for order in orders)])
    action = np.arange(len(kind), dtype=np.int32)
    is_f, is_w = kind == FORWARD, kind == WEIGHT_GRADIENT
    is_b = ~(is_f | is_w)

    # table[s, i]: which action is the forward (backward, weight gradient) of micro-batch i on stage s.
    def table(chosen: NDArray[np.bool_]) -> Ints:
        filled = np.full((schedule.stages, schedule.micro_batches), ABSENT, np.int32)
        filled[stage[chosen], micro_batch[chosen]] = action[chosen]
        return filled

    forward, backward, weight = table(is_f), table(is_b), table(is_w)
    nothing = np.full((1, schedule.micro_batches), len(kind), np.int32)
    producer = np.full(len(kind), len(kind), np.int32)
    producer[is_f] = np.concatenate((nothing, forward))[stage[is_f], micro_batch[is_f]]
    producer[is_b] = np.concatenate((backward, nothing))[stage[is_b] + 1, micro_batch[is_b]]
    early, alone = np.full(len(kind), len(kind), np.int32), np.zeros(len(kind), np.bool_)
    graph = ActionGraph(schedule, first, kind, stage, micro_batch, producer, early, alone)
    lacking = _repeated(graph, forward, backward, weight) + _missing(graph, forward, backward)
    if lacking:
        raise ScheduleError(f"{schedule.name} cannot run: " + "; ".join(lacking))
    return graph


def _repeated(graph: ActionGraph, forward: Ints, backward: Ints, weight: Ints) -> list[str]:
    """Name every action that stands twice on its rank."""
    expected = len(graph.kind)
    if sum(int((table != ABSENT).sum()) for table in (forward, backward, weight)) == expected:
        return []
    tables = {FORWARD: forward, BACKWARD: backward, INPUT_GRADIENT: backward, WEIGHT_GRADIENT: weight}
    columns = zip(graph.kind.tolist(), graph.stage.tolist(), graph.micro_batch.tolist(), strict=True)
    return [
        f"{graph.label(index)} is done twice"
        for index, (kind, stage, micro_batch) in enumerate(columns)
        if tables[kind][stage, micro_batch] != index
    ]


def _missing(graph: ActionGraph, forward: Ints, backward: Ints) -> list[str]:
    """Name every action whose input no rank makes, or whose own rank does not make it in time."""
    found = []
    for index in np.flatnonzero(graph.producer == ABSENT).tolist():
        step = -1 if graph.kind[index] == FORWARD else 1
        needed = f"{KINDS[graph.kind[index]]}{graph.micro_batch[index]} of stage {graph.stage[index] + step}"
        found.append(f"{graph.label(index)} waits for {needed}, which is never done")
    split = graph.kind == WEIGHT_GRADIENT
    fused = (graph.kind == BACKWARD) | (graph.kind == INPUT_GRADIENT)
    for chosen, table, letter in ((fused, forward, "F"), (split, backward, "I")):
        later = np.flatnonzero(chosen)
        own = table[graph.stage[later], graph.micro_batch[later]]
        wrong = (own > later) | (own == ABSENT)
        if letter == "I":
            wrong |= graph.kind[own] != INPUT_GRADIENT
        for index, at in zip(later[wrong].tolist(), own[wrong].tolist(), strict=True):
            when = "comes later on the same rank" if at > index else "is never done"
            needed = f"{letter}{graph.micro_batch[index]} of stage {graph.stage[index]}"
            found.append(f"{graph.label(index)} waits for {needed}, which {when}")
    return found
