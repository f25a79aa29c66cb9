"""A visit as it is kept: the steps that were timed, when, and on whose ranks."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from autotune.records.prediction import Candidate


@dataclass(frozen=True)
class Timing:
    """Timed steps of one visit, one after the other.

    ``number`` counts the controller's visits; ``at_s`` is the middle of the timed steps on the wall clock. ``machine``
    names the controller whose ranks ran it ("" where a study has only one), ``session`` counts the runs of that
    controller. ``ready_s``: seconds that making ready took, the untimed step not included.
    """

    number: int
    candidate: Candidate
    step_times_s: tuple[float, ...]
    at_s: float
    machine: str = ""
    session: int = 0
    ready_s: float = 0.0


def wall_clock() -> Callable[[], float]:
    """Return a clock that tells seconds since 1970, and never goes back."""
    begun, then = time.time(), time.monotonic()
    return lambda: begun + time.monotonic() - then
