"""The Measurement of a candidate that ran. Below search and report, which both read it."""

from collections.abc import Callable
from statistics import median

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from autotune.records.base import Record
from autotune.records.failure import Failure

KeepGoing = Callable[[int, float], bool]
"""Called after each timed step with its number and seconds; says whether another one is wanted."""


class Measurement(Record):
    """Timed steps of one candidate on live ranks."""

    step_times_s: tuple[NonNegativeFloat, ...] = Field(min_length=1)
    """Seconds of each timed step, raw."""
    step_time_s: NonNegativeFloat
    """Median of the timed steps, seconds."""
    throughput_seq_s: NonNegativeFloat
    """Throughput by that median, sequences per second."""
    throughput_tokens_s: NonNegativeFloat | None
    """Throughput, tokens per second; null where the tokens per sequence are not known."""
    peak_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    """By rank, the peak of the device's allocator over one whole step."""
    device_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    """By rank, all that was taken from the device, by the allocator and outside of torch; null where the device does
    not tell."""
    loss: float | None = None
    """Loss of the last step."""
    first_loss: float | None = None
    """Loss of the first, untimed step, which begins with the same weights for every candidate."""
    gradient_norm: NonNegativeFloat | None = None
    """2-norm over the gradients of all stages in that first step."""
    growth_bytes: tuple[int, ...] | None = None
    """By rank, what each timed step left behind, of all steps the least; null for fewer than two steps, and where the
    device cannot tell."""
    alloc_retries: tuple[NonNegativeInt, ...] | None = None
    """By rank, how often in timed steps the allocator had to give back what it kept for later, which waits for the
    device, before it could go on."""
    measured_at: str | None = None
    """Time of the measurement, ISO 8601."""
    from_earlier_run: bool = False
    """True where an earlier run of the same study measured it."""
    from_other_controller: bool = False
    """True where another controller of a shared study measured it on its own ranks."""
    pruned: bool = False
    """True where it was stopped early."""

    @staticmethod
    def of(step_times_s: tuple[float, ...], sequences: int, seq_len: int | None, **rest: object) -> "Measurement":
        """Build the record from raw step times of ``sequences`` real sequences, of ``seq_len`` tokens if known."""
        step_time = median(step_times_s)
        return Measurement(
            step_times_s=step_times_s,
            step_time_s=step_time,
            throughput_seq_s=sequences / step_time,
            throughput_tokens_s=sequences * seq_len / step_time if seq_len else None,
            **rest,  # type: ignore[arg-type]
        )


Outcome = Measurement | Failure
"""What a real run of a candidate ends as."""
