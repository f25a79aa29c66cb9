"""What is known of a running trial: its steps, from the probe where it notes them, else from the log."""

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import Literal, NamedTuple

from autotune.logs.log import Log, StepShape, step_seconds
from autotune.logs.noted import Notes
from autotune.logs.steady import steady

ALIKE = 0.1
"""Logarithm of the ratio of two steps in a row from which on they are taken to be steady."""
WARM_UP_AT_MOST = 12
"""Steps after which the rest is timed however unsteady it is."""
MORE_OFTEN = 1.5
"""Steps that the probe notes for each that the log counts, from which on the log is believed."""

Source = Literal["probe", "log"]


class Seen(NamedTuple):
    """Seconds of each step so far, and who told them."""

    seconds: tuple[float, ...]
    source: Source


class Watch:
    """The log and the notes of one trial."""

    def __init__(self, lines: Log, notes: Notes, shape: StepShape) -> None:
        self.lines, self.notes, self.shape = lines, notes, shape

    @property
    def steps(self) -> int:
        """Steps that have ended, timed or not."""
        return max(len(self.notes.finished()), len(self.lines.steps))

    @property
    def seen(self) -> Seen:
        """The steps so far, the first that is noted left out: it has no beginning."""
        ends, printed = self.notes.finished(), step_seconds(self.lines.steps, self.shape)
        counted = [step.line.number for step in self.lines.steps if step.line.number is not None]
        is_finer = len(counted) > 2 and len(ends) > MORE_OFTEN * (counted[-1] - counted[0] + 1) + 1
        if len(ends) > 1 and not is_finer:
            return Seen(tuple(later - earlier for earlier, later in pairwise(ends)), "probe")
        return Seen(tuple(printed), "log")

    @property
    def is_broken(self) -> bool:
        """True where the log says of all steps, several of them, that loss or gradients are not finite."""
        told = [step.line for step in self.lines.steps]
        return len(told) > 1 and all(line.is_broken for line in told)

    @property
    def first_loss(self) -> float | None:
        """Loss of the first step that the log tells of."""
        return next((step.line.loss for step in self.lines.steps[:1]), None)

    @property
    def first_norm(self) -> float | None:
        """Gradient norm of the first step that the log tells of."""
        return next((step.line.gradient_norm for step in self.lines.steps[:1]), None)

    @property
    def last_loss(self) -> float | None:
        """Loss of the last step that the log tells of."""
        return next((step.line.loss for step in reversed(self.lines.steps) if step.line.loss is not None), None)

    def peaks(self, ranks: int) -> tuple[int, ...] | None:
        """Return the peak memory by rank of the pipeline: as noted, else as logged; None where neither has it. Where
        there are more ranks than that, replicas or parts of a layer, those that stand for the fullest."""
        logged = [one.allocated_bytes or one.reserved_bytes or 0 for _, one in sorted(self.lines.memory.items())]
        found = list(self.notes.peaks) or logged
        if len(found) < ranks or not ranks or len(found) % ranks:
            return None
        each = len(found) // ranks  # neighbours belong to one stage, as every launcher numbers them
        return tuple(max(found[rank * each : (rank + 1) * each]) for rank in range(ranks))


def first_timed(seconds: Sequence[float]) -> int | None:
    """Return from which step on steps are steady enough to be timed; None where they are not yet."""
    for at in range(1, len(seconds)):
        if abs(log(seconds[at] / seconds[at - 1])) < ALIKE or at >= WARM_UP_AT_MOST:
            return at
    return None


def timed_at_last(seconds: Sequence[float], first: int | None) -> tuple[float, ...]:
    """Return the timed steps of a command that has ended: from ``first`` on, or the steady ones of few."""
    if first is not None:
        return tuple(seconds[first:])
    return steady(seconds).steps if len(seconds) > 1 else ()
