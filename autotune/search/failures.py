"""The conclusions from failures for the trials that are left."""

from autotune.records.outcome import Failure
from autotune.search.state import SearchState

ALIKE = 3  # failures in a row, with nothing that ever ran, that say that it is not the candidates


def common_fault(state: SearchState) -> Failure | None:
    """Return what met every trial so far, if nothing ever ran: it would meet all others too."""
    last = state.failures[-ALIKE:]
    if state.measured or len(last) < ALIKE or any(one.kind == "out_of_memory" for one in last):
        return None
    return last[0] if len({(one.kind, one.stage) for one in last}) == 1 else None
