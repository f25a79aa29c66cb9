"""The seven schedules of torch 2.13, a row each: which (p, v, m) it admits, and how torch's runtime runs it.

::

    schedule                stages per rank v  micro-batches m
    GPipe                   1                  any
    1F1B                    1                  m >= p            (stages S = p); GPipe stands in for it where m < p
    LoopedBFS               any                any
    Interleaved1F1B         any                m divisible by max(1, m // p), its number of rounds
    InterleavedZeroBubble   any                m divisible by max(1, m // p)
    ZBVZeroBubble           2                  any
    DualPipeV               2                  m >= 2p           (stages S = 2p)

A new schedule is a row here, and its order of actions in ``predict.orders``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

ScheduleName = Literal[
    "GPipe", "1F1B", "LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"
]
Runtime = Literal["waits", "exchanges", "lowered"]
Refusal = Callable[[int, int], str | None]
"""``(ranks, micro_batches)`` -> what the schedule asks instead; None where it runs."""


def _any(ranks: int, micro_batches: int) -> str | None:
    return None


def _fills_the_stages(stages_per_rank: int) -> Refusal:
    def refuse(ranks: int, micro_batches: int) -> str | None:
        stages = stages_per_rank * ranks
        if micro_batches >= stages:
            return None
        return f"needs at least as many micro-batches as stages ({stages})"

    return refuse


def _whole_rounds(ranks: int, micro_batches: int) -> str | None:
    rounds = max(1, micro_batches // ranks)
    if micro_batches % rounds == 0:
        return None
    return f"needs a number of micro-batches that is a multiple of its rounds (m // p = {rounds})"


@dataclass(frozen=True)
class ScheduleSpec:
    """The rules and properties of one schedule.

    ``stages_per_rank``: the only v that it runs; None: any. ``refuse``: the rule for m. ``placement``: stages go round
    the ranks in a loop, or down them and back up in a "v". ``backward``: in one piece, or "split" into input and weight
    gradients. ``runtime``: torch's own loop that "waits" for each receive before the action that needs it (GPipe),
    the one that also "exchanges" a send and a receive in one batch (1F1B), or the multi-stage runtime, which runs a
    "lowered" list of computations, sends and receives. ``stand_in``: what runs in its place where it refuses m.
    ``since``: the release of torch from which on it runs here.
    """

    name: ScheduleName
    stages_per_rank: int | None
    refuse: Refusal
    placement: Literal["loop", "v"] = "loop"
    backward: Literal["fused", "split"] = "fused"
    runtime: Runtime = "lowered"
    stand_in: ScheduleName | None = None
    since: tuple[int, int] = (2, 4)

    @property
    def has_one_stage(self) -> bool:
        """True where a rank always has a single stage under it."""
        return self.stages_per_rank == 1


ROWS = (
    ScheduleSpec("GPipe", 1, _any, runtime="waits"),
    ScheduleSpec("1F1B", 1, _fills_the_stages(1), runtime="exchanges", stand_in="GPipe"),
    ScheduleSpec("LoopedBFS", None, _any),
    ScheduleSpec("Interleaved1F1B", None, _whole_rounds),
    ScheduleSpec("InterleavedZeroBubble", None, _whole_rounds, backward="split", since=(2, 5)),
    ScheduleSpec("ZBVZeroBubble", 2, _any, placement="v", backward="split", since=(2, 10)),
    ScheduleSpec("DualPipeV", 2, _fills_the_stages(2), placement="v", backward="split", since=(2, 9)),
)
SCHEDULES: dict[str, ScheduleSpec] = {row.name: row for row in ROWS}
SCHEDULE_NAMES: tuple[ScheduleName, ...] = get_args(ScheduleName)


def schedule_named(text: str | None) -> ScheduleName | None:
    """Return the schedule of a name as people and launchers write it, such as ``gpipe``; None where it is none of
    ours."""
    plain = (text or "").replace("_", "").lower()
    return next((row.name for row in ROWS if row.name.lower() == plain), None)


def default_schedule(virtual_stages: int) -> ScheduleName:
    """Return the schedule that is meant where none is named: 1F1B, interleaved where ranks have several stages."""
    return "1F1B" if virtual_stages == 1 else "Interleaved1F1B"


def stages_per_rank(names: Sequence[str], virtual_stages: Sequence[int]) -> set[int]:
    """Return the numbers of stages that a rank has under these schedules, ``virtual_stages`` where they leave the
    choice."""
    found: set[int] = set()
    for name in names:
        only = SCHEDULES[name].stages_per_rank
        found |= {only} if only else set(virtual_stages)
    return found


def runnable(name: ScheduleName, ranks: int, micro_batches: int) -> ScheduleName:
    """Return the schedule, or what stands in for it where it refuses m."""
    spec = SCHEDULES[name]
    return spec.stand_in if spec.stand_in and spec.refuse(ranks, micro_batches) else name


def why_illegal(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> str | None:
    """Return in one line why torch refuses this schedule, or None if it runs it."""
    if name not in SCHEDULES:
        return f"there is no schedule {name!r}; use one of {', '.join(SCHEDULES)}"
    for value, what in ((ranks, "ranks"), (virtual_stages, "virtual stages"), (micro_batches, "micro-batches")):
        if value < 1:
            return f"{name} needs at least 1 of {what} (given: {value})"
    spec = SCHEDULES[name]
    if spec.stages_per_rank not in (None, virtual_stages):
        return f"{name} runs exactly {spec.stages_per_rank} stage(s) per rank (given: {virtual_stages})"
    reason = spec.refuse(ranks, micro_batches)
    return reason and f"{name} on {ranks} ranks {reason} (given: {micro_batches})"


def nearest_legal_m(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> int | None:
    """Return the legal m closest to ``micro_batches``, the smaller of two; None if no m helps (v is at fault).

    Every schedule admits some m in [p, 2p] and all its multiples of p, so the search is short.
    """
    if name not in SCHEDULES or ranks < 1 or SCHEDULES[name].stages_per_rank not in (None, virtual_stages):
        return None
    wanted = max(1, micro_batches)
    for distance in range(2 * ranks + 1):
        for candidate in (wanted - distance, wanted + distance):
            if why_illegal(name, ranks, virtual_stages, candidate) is None:
                return candidate
    return None
