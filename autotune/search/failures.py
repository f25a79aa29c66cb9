"""What trials that failed say of the candidates that are left: who would fail too, who may try again, when to stop."""

import re
from typing import TYPE_CHECKING

from autotune.outcome import Failure
from autotune.search.space import show

if TYPE_CHECKING:
    from autotune.search.search import Search

ACCIDENTS = ("crash", "hang")
ALIKE = 3  # failures in a row, with nothing that ever ran, that say that it is not the candidates


def note_failure(search: "Search", index: int, failure: Failure) -> None:
    """After a trial that failed, or when an earlier run's is taken over."""
    search.failures.append(failure)
    candidate = search.candidates[index]
    if failure.kind == "out_of_memory":
        rule_out(search, index, failure)
        fits = largest_that_fits(search, index)
        rest = f"the largest micro-batch predicted to fit is {fits} sequences" if fits else "no smaller one fits either"
        search.on_warning(f"{show(candidate)} ran out of memory ({failure.message}); {rest}")
    elif failure.kind in ACCIDENTS and index not in search.accidents:
        search.accidents.add(index)
        search.second_chance.add(index)
        search.on_warning(f"{show(candidate)} may be tried once more, for {failure.message}")


def rule_out(search: "Search", index: int, failure: Failure) -> None:
    """After ``index`` ran out of memory: so will whatever needs at least as much on that rank, by prediction."""
    needed = search.predictions[index].peak_memory_bytes
    if needed is None:
        return
    ranks = range(len(needed)) if failure.rank is None else [failure.rank]
    for other, prediction in enumerate(search.predictions):
        theirs = prediction.peak_memory_bytes
        if theirs and other not in search.outcomes and all(theirs[rank] >= needed[rank] for rank in ranks):
            search.ruled_out[other] = f"needs as much memory as {show(search.candidates[index])}, which ran out"


def largest_that_fits(search: "Search", index: int) -> int | None:
    """The largest micro-batch of the same schedule that fits, measured or by prediction."""
    mine = search.candidates[index]
    return max(
        (
            other.micro_batch_size
            for at, other in enumerate(search.candidates)
            if (other.schedule, other.virtual_stages) == (mine.schedule, mine.virtual_stages)
            and at not in search.ruled_out
            and (search.over_limit(at) or 0) <= 0
        ),
        default=None,
    )


def common_fault(search: "Search") -> Failure | None:
    """What met every trial so far, if nothing ever ran: then it would meet all others too."""
    last = search.failures[-ALIKE:]
    if search.measured or len(last) < ALIKE or any(one.kind == "out_of_memory" for one in last):
        return None
    return last[0] if len({fault(one) for one in last}) == 1 else None


def fault(failure: Failure) -> str:
    """The failure without where it happened, and without numbers."""
    return f"{failure.kind} {re.sub(r'[0-9]+', '#', failure.message.partition(': ')[2])}"
