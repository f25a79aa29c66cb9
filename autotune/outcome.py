"""The outcome of a real run of a candidate: a Measurement or a Failure. Below search and report, which both read it."""

from statistics import median
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from autotune.records import Record

FailureKind = Literal["out_of_memory", "hang", "crash", "model_error"]


class Failure(Record):
    """A candidate that did not run; ``rank`` is None where no single rank is to blame.

    ``action``: what that rank was doing, on ``stage`` if it was about one. ``short_bytes``: of memory that it lacked,
    at least. ``last_words``: the end of what it wrote to its stderr. None where not known.
    """

    kind: FailureKind
    rank: NonNegativeInt | None = None
    message: str
    stage: NonNegativeInt | None = None
    action: str | None = None
    short_bytes: NonNegativeInt | None = None
    last_words: str | None = None


class Measurement(Record):
    """Timed steps of one candidate on live ranks.

    ``step_times_s`` are the raw samples; ``step_time_s`` is their median. ``peak_memory_bytes[rank]`` is the device
    allocator's own peak over one whole step; ``device_memory_bytes[rank]``, where the device tells, all that was taken
    from it, by the allocator and outside of torch. ``measured_at`` is ISO 8601; ``from_earlier_run`` marks a figure
    that an earlier run of the same study measured, ``from_other_controller`` one from ranks of another controller that
    shares the study.

    ``loss`` is that of the last step; ``first_loss`` and ``gradient_norm`` (2-norm over the gradients of all stages)
    are those of the first, untimed step, which begins with the same weights for every candidate.
    ``alloc_retries[rank]``: how often in timed steps the allocator had to give back what it kept for later, which waits
    for the device, before it could go on.
    ``growth_bytes[rank]``: what each timed step left behind, of all steps the least; None for fewer than two, and where
    the device cannot tell.
    """

    step_times_s: tuple[NonNegativeFloat, ...] = Field(min_length=1)
    step_time_s: NonNegativeFloat
    throughput_seq_s: NonNegativeFloat
    throughput_tokens_s: NonNegativeFloat | None
    peak_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    device_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    loss: float | None = None
    first_loss: float | None = None
    gradient_norm: NonNegativeFloat | None = None
    growth_bytes: tuple[int, ...] | None = None
    alloc_retries: tuple[NonNegativeInt, ...] | None = None
    measured_at: str | None = None
    from_earlier_run: bool = False
    from_other_controller: bool = False
    pruned: bool = False

    @staticmethod
    def of(step_times_s: tuple[float, ...], sequences: int, seq_len: int | None, **rest: object) -> "Measurement":
        """Builds the record from raw step times of ``sequences`` real sequences, of ``seq_len`` tokens if known."""
        step_time = median(step_times_s)
        return Measurement(
            step_times_s=step_times_s,
            step_time_s=step_time,
            throughput_seq_s=sequences / step_time,
            throughput_tokens_s=sequences * seq_len / step_time if seq_len else None,
            **rest,  # type: ignore[arg-type]
        )
