"""A run that somebody made: m, b, and how long its steps took. What ``autotune fit`` learns from."""

from typing import Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from autotune.records.base import Record
from autotune.records.prediction import Candidate
from autotune.schedule_spec import ScheduleName


class TimedRun(Record):
    """One run of a training job with m micro-batches of b sequences, each of ``data_parallel`` replicas by itself."""

    micro_batches: PositiveInt
    """Micro-batches per step (m)."""
    micro_batch_size: PositiveInt
    """Sequences per micro-batch (b)."""
    step_time_s: PositiveFloat
    """Seconds of a step: the median, where several were timed."""
    standard_error: NonNegativeFloat = 0.0
    """Relative standard error of that median; 0 where not known."""
    steps: PositiveInt = 1
    """Steps that it is the median of."""
    peak_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    """By rank, or of the fullest alone, the peak memory; null where not known."""
    schedule: ScheduleName = "1F1B"
    """Schedule, by torch's name."""
    virtual_stages: PositiveInt = 1
    """Stages per rank (v)."""
    data_parallel: PositiveInt = 1
    """Replicas of the pipeline."""
    source: str = ""
    """File that it was read from."""

    @property
    def candidate(self) -> Candidate:
        """The way that it ran the step."""
        return Candidate(
            micro_batches=self.micro_batches,
            micro_batch_size=self.micro_batch_size,
            sequences=self.micro_batches * self.micro_batch_size,
            schedule=self.schedule,
            virtual_stages=self.virtual_stages,
        )

    @model_validator(mode="after")
    def _peaks_are_not_empty(self) -> Self:
        if self.peak_memory_bytes == ():
            raise ValueError("peak_memory_bytes: give one number, or one by rank, or leave it out")
        return self
