"""What one line of a log says: a step, a rank's memory, an argument of the launcher."""

from typing import NamedTuple

from pydantic import NonNegativeFloat, NonNegativeInt

from autotune.records.base import Record


class StepLine(Record):
    """A step as a launcher prints it; what a line does not say is None. Rates count tokens or sequences of one step.

    ``seconds`` are of one step, the mean where the line is of several. ``half_width_s``: the rounding of the print.
    """

    number: NonNegativeInt | None = None
    """Number of the step."""
    seconds: NonNegativeFloat | None = None
    """Seconds of the step as printed."""
    half_width_s: NonNegativeFloat = 0.0
    """Half of the last printed digit, seconds."""
    sequences_s: NonNegativeFloat | None = None
    """Sequences per second, of all replicas."""
    tokens_s: NonNegativeFloat | None = None
    """Tokens per second, of all devices."""
    tokens_device_s: NonNegativeFloat | None = None
    """Tokens per second of one device."""
    sequences: NonNegativeInt | None = None
    """Sequences of the step, of all replicas."""
    loss: float | None = None
    """Loss; an infinite or undefined one is None, and ``is_broken``."""
    gradient_norm: NonNegativeFloat | None = None
    """2-norm of the gradients."""
    is_broken: bool = False
    """Whether loss or gradients are not finite, or the launcher skipped the step because of that."""
    written_at: float | None = None
    """Time that the line itself gives, seconds since the epoch."""
    rank: NonNegativeInt | None = None
    """Rank that printed it, where the line says so."""

    @property
    def says_time(self) -> bool:
        """True where the line gives seconds or a rate."""
        return any(value is not None for value in (self.seconds, self.sequences_s, self.tokens_s, self.tokens_device_s))


class MemoryLine(Record):
    """Peak memory of a rank."""

    rank: NonNegativeInt | None = None
    """Rank; None where the line does not say."""
    allocated_bytes: NonNegativeInt | None = None
    """Peak that the allocator handed out."""
    reserved_bytes: NonNegativeInt | None = None
    """Peak that it took from the device."""


class ArgumentLine(NamedTuple):
    """An argument that the launcher says it runs with, under the launcher's own name."""

    name: str
    value: str


Said = StepLine | MemoryLine | ArgumentLine
