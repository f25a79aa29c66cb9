"""What is left to try, and what failures mean for it."""

from autotune.records.failure import Failure
from autotune.records.prediction import Candidate
from autotune.records.verdict import StopReason
from autotune.search.state import ACCIDENTS, SearchState

ALIKE = 3  # failures in a row, with nothing that ever ran, that say that it is not the candidates


def common_fault(state: SearchState) -> Failure | None:
    """Return what met every trial so far, if nothing ever ran: it would meet all others too."""
    last = state.failures[-ALIKE:]
    if state.measured or len(last) < ALIKE or any(one.kind == "out_of_memory" for one in last):
        return None
    return last[0] if len({(one.kind, one.stage) for one in last}) == 1 else None


def what_follows(state: SearchState, candidate: Candidate, failure: Failure, was_accident: bool) -> str | None:
    """Return what a failure means beyond its candidate, in words; None where it means nothing. ``was_accident``: it
    had failed once already."""
    if failure.kind == "out_of_memory":
        fits = state.largest_that_fits(candidate)
        rest = f"the largest micro-batch predicted to fit is {fits} sequences" if fits else "no smaller one fits"
        return f"{candidate.label} ran out of memory ({failure.message}); {rest}"
    if failure.kind in ACCIDENTS and not was_accident:
        return f"{candidate.label} failed and may be retried once: {failure.message}"
    return None


def why_nothing(state: SearchState) -> StopReason:
    """Return why no candidate is worth its time."""
    if state.untried:
        return StopReason.DECIDED
    is_done = all(candidate in state.measured for candidate in state.allowed)
    return StopReason.ALL_MEASURED if is_done else StopReason.NOTHING_LEFT
