"""Schedules as data: sizes in, ordered actions out. The same object is drawn, counted, checked and simulated."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autotune.predict.orders import BACKWARD, BUILDERS, FORWARD, KINDS, WEIGHT_GRADIENT, Order
from autotune.schedule_spec import SCHEDULES, Runtime, why_illegal

Kind = Literal["F", "B", "I", "W"]
ACTION = re.compile(r"(\d*)([FBIW])(\d+)")


class ScheduleError(ValueError):
    """A schedule that cannot be built, or an order that can never finish."""


class Action(NamedTuple):
    """One piece of work of a rank: F forward, B full backward, I input gradient, W weight gradient."""

    kind: Kind
    stage: int
    micro_batch: int

    def __str__(self) -> str:
        """Torch's CSV form: ``2B0`` is the backward of micro-batch 0 on stage 2."""
        return f"{self.stage}{self.kind}{self.micro_batch}"


@dataclass(frozen=True, eq=False)
class Schedule:
    """Per rank, the order of actions.

    ``stage_ranks[s]`` is the rank that runs stage s; S = p·v stages. Orders are made rank by rank when asked for, so
    that a schedule of millions of actions costs nothing until somebody looks at it.
    """

    name: str
    ranks: int
    micro_batches: int
    virtual_stages: int
    stage_ranks: tuple[int, ...]
    order: Callable[[int], Order] = field(repr=False)

    @property
    def runtime(self) -> Runtime:
        """The way torch runs it; an order of a user's own is lowered as those of several stages a rank are."""
        return SCHEDULES[self.name].runtime if self.name in SCHEDULES else "lowered"

    @property
    def stages(self) -> int:
        """S, the number of stages."""
        return len(self.stage_ranks)

    def by_rank(self, of_stages: ArrayLike) -> NDArray[np.float64]:
        """Return float64[p]: what the stages of each rank have together, of one number for each stage."""
        return np.bincount(self.stage_ranks, of_stages, self.ranks).astype(np.float64)

    def actions(self, rank: int) -> list[Action]:
        """Return the rank's actions in order."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        kind, stage, micro_batch = (column.tolist() for column in self.order(rank))
        return [Action(kinds[k], s, i) for k, s, i in zip(kind, stage, micro_batch, strict=True)]

    def row(self, rank: int) -> str:
        """Return the rank's order as text: ``F0 F1 B0 B1``; with several stages per rank in torch's CSV form,
        ``0F1``."""
        short = self.virtual_stages == 1
        return " ".join(f"{a.kind}{a.micro_batch}" if short else str(a) for a in self.actions(rank))

    def in_flight(self, rank: int) -> int:
        """Return the most (stage, micro-batch) activations that the rank holds at once.

        One is held from its F to the end of its B, or of its W where the backward is split.
        """
        return _most_held(self.order(rank).kind)

    def stage_in_flight(self, stage: int) -> int:
        """Return the most micro-batches whose activations the stage holds at once, counted as in ``in_flight``."""
        order = self.order(self.stage_ranks[stage])
        return _most_held(order.kind[order.stage == stage])


def _most_held(kind: np.ndarray[tuple[int, ...], np.dtype[np.int8]]) -> int:
    """The highest level that taking one at every F and giving one back at every B or W reaches."""
    change = (kind == FORWARD).astype(np.int32) - ((kind == BACKWARD) | (kind == WEIGHT_GRADIENT))
    return int(change.cumsum().max(initial=0))


def build_schedule(name: str, ranks: int, micro_batches: int, virtual_stages: int = 1) -> Schedule:
    """Build one of torch's schedules; raise ScheduleError with the rule that p, v or m breaks.

    1F1B with m < p is built too: it is well defined, though torch refuses to run it.
    """
    refused = why_illegal(name, ranks, virtual_stages, micro_batches)
    if refused and not (name == "1F1B" and virtual_stages == 1 and min(ranks, micro_batches) >= 1):
        raise ScheduleError(refused)
    loop = tuple(stage % ranks for stage in range(ranks * virtual_stages))
    stage_ranks = loop if SCHEDULES[name].placement == "loop" else loop[:ranks] + loop[:ranks][::-1]
    order = cache(partial(BUILDERS[name], ranks, micro_batches, virtual_stages))
    return Schedule(name, ranks, micro_batches, virtual_stages, stage_ranks, order)


def parse_row(text: str, stage: int) -> list[Action]:
    """Read ``F0 F1 B0`` (actions of ``stage``) or torch's CSV form ``0F1 3B0``; raise ScheduleError."""
    actions = []
    for word in text.split():
        match = ACTION.fullmatch(word)
        if match is None:
            raise ScheduleError(f"{word!r} is not an action: write F0, B0, I0 or W0, or with its stage 2F0")
        own_stage, kind, micro_batch = match.groups()
        actions.append(Action(kind, int(own_stage or stage), int(micro_batch)))  # type: ignore[arg-type]
    return actions


def custom_schedule(rows: Sequence[Sequence[Action]]) -> Schedule:
    """Return a schedule from hand-made orders, one per rank; raise ScheduleError if two ranks share a stage or one is
    idle.

    Whether it can finish is for ``simulate`` to say.
    """
    stage_ranks: dict[int, int] = {}
    for rank, row in enumerate(rows):
        for action in row:
            if stage_ranks.setdefault(action.stage, rank) != rank:
                raise ScheduleError(f"{action} is on rank {rank}, but stage {action.stage} is on another rank")
    if sorted(stage_ranks) != list(range(len(stage_ranks))) or len(set(stage_ranks.values())) != len(rows):
        raise ScheduleError(f"{len(rows)} ranks run stages {sorted(stage_ranks)}: each stage, and each rank, must act")
    orders = [
        Order(
            np.array([KINDS.index(a.kind) for a in row], np.int8),
            np.array([a.stage for a in row], np.int32),
            np.array([a.micro_batch for a in row], np.int32),
        )
        for row in rows
    ]
    return Schedule(
        name="custom",
        ranks=len(rows),
        micro_batches=1 + max(action.micro_batch for row in rows for action in row),
        virtual_stages=-(-len(stage_ranks) // len(rows)),
        stage_ranks=tuple(stage_ranks[stage] for stage in range(len(stage_ranks))),
        order=orders.__getitem__,
    )
