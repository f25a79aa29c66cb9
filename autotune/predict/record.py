"""Candidate and Prediction: what is chosen, and what the cost model says of it."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from autotune.config import ScheduleName
from autotune.records import Record


class Candidate(Record):
    """One way to run the step: ``micro_batches`` of ``micro_batch_size`` sequences under ``schedule``.

    ``sequences`` are real; the ``padding`` rows that fill the last micro-batches are masked from the loss.
    """

    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    sequences: PositiveInt
    schedule: ScheduleName
    virtual_stages: PositiveInt = 1

    @property
    def padding(self) -> int:
        """Rows computed in vain: m·b - B."""
        return self.micro_batches * self.micro_batch_size - self.sequences


class TimeSplit(Record):
    """Seconds of device time of one step, averaged over the ranks; the parts add up to the step."""

    compute: NonNegativeFloat
    bubble: NonNegativeFloat
    communication: NonNegativeFloat
    optimizer: NonNegativeFloat
    overhead: NonNegativeFloat


class Prediction(Record):
    """What the cost model says of one candidate; every list is indexed by rank."""

    step_time_s: NonNegativeFloat
    step_time_low_s: NonNegativeFloat
    step_time_high_s: NonNegativeFloat
    throughput_seq_s: NonNegativeFloat
    throughput_tokens_s: NonNegativeFloat | None
    bubble_fraction: NonNegativeFloat
    in_flight: tuple[NonNegativeInt, ...]
    peak_memory_bytes: tuple[NonNegativeInt, ...] | None
    fits: bool | None
    time_split_s: TimeSplit
