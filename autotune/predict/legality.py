"""Which (p, v, m) each schedule admits under torch 2.13, in one table.

::

    schedule                virtual stages v   micro-batches m
    GPipe                   1                  any
    1F1B                    1                  m >= p            (stages S = p)
    LoopedBFS               any                any
    Interleaved1F1B         any                m divisible by max(1, m // p), its number of rounds
    InterleavedZeroBubble   any                m divisible by max(1, m // p)
    ZBVZeroBubble           2                  any
    DualPipeV               2                  m >= 2p           (stages S = 2p)
"""

from collections.abc import Callable
from typing import NamedTuple


class Rule(NamedTuple):
    """What one schedule asks: ``virtual_stages`` (None: any) and ``refuse(p, m)``, the reason against m or None."""

    virtual_stages: int | None
    refuse: Callable[[int, int], str | None]


def _any(ranks: int, micro_batches: int) -> str | None:
    return None


def _fills_the_stages(stages_per_rank: int) -> Callable[[int, int], str | None]:
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


RULES: dict[str, Rule] = {
    "GPipe": Rule(1, _any),
    "1F1B": Rule(1, _fills_the_stages(1)),
    "LoopedBFS": Rule(None, _any),
    "Interleaved1F1B": Rule(None, _whole_rounds),
    "InterleavedZeroBubble": Rule(None, _whole_rounds),
    "ZBVZeroBubble": Rule(2, _any),
    "DualPipeV": Rule(2, _fills_the_stages(2)),
}
SCHEDULE_NAMES = tuple(RULES)


def why_illegal(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> str | None:
    """Returns in one line why torch refuses this schedule, or None if it runs it."""
    if name not in RULES:
        return f"there is no schedule {name!r}; use one of {', '.join(RULES)}"
    for value, what in ((ranks, "ranks"), (virtual_stages, "virtual stages"), (micro_batches, "micro-batches")):
        if value < 1:
            return f"{name} needs at least 1 of {what} (given: {value})"
    rule = RULES[name]
    if rule.virtual_stages not in (None, virtual_stages):
        return f"{name} runs exactly {rule.virtual_stages} stage(s) per rank (given: {virtual_stages})"
    reason = rule.refuse(ranks, micro_batches)
    return reason and f"{name} on {ranks} ranks {reason} (given: {micro_batches})"


def nearest_legal_m(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> int | None:
    """Returns the legal m closest to ``micro_batches``, the smaller of two; None if no m helps (v is at fault).

    Every schedule admits some m in [p, 2p] and all its multiples of p, so the search is short.
    """
    if name not in RULES or ranks < 1 or RULES[name].virtual_stages not in (None, virtual_stages):
        return None
    wanted = max(1, micro_batches)
    for distance in range(2 * ranks + 1):
        for candidate in (wanted - distance, wanted + distance):
            if why_illegal(name, ranks, virtual_stages, candidate) is None:
                return candidate
    return None
