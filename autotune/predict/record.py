"""Candidate and Prediction: what is chosen, and what the cost model says of it."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autotune.records import Record
from autotune.schedule_spec import SCHEDULES, ScheduleName


def schedule_words(schedule: str, virtual_stages: int) -> str:
    """``Interleaved1F1B x2``: the schedule, and the number of stages per rank where it is not one."""
    return schedule + (f" x{virtual_stages}" if virtual_stages > 1 else "")


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

    @property
    def placement(self) -> tuple[int, bool]:
        """How its stages lie on the ranks: so many on each, in a loop or folded. Candidates of one placement are
        predicted from one profile in one way, and share its errors."""
        return self.virtual_stages, SCHEDULES[self.schedule].placement == "v"


class TimeSplit(Record):
    """Seconds of one step by what they go to; the parts add up to the step (defined in ``predict.split``)."""

    compute: NonNegativeFloat
    padding: NonNegativeFloat = 0.0
    granularity: NonNegativeFloat = 0.0
    slowdown: NonNegativeFloat = 0.0
    communication: NonNegativeFloat
    imbalance: NonNegativeFloat = 0.0
    bubble: NonNegativeFloat
    optimizer: NonNegativeFloat
    overhead: NonNegativeFloat


class MemorySplit(Record):
    """Bytes that one rank holds at its fullest ``moment`` ("F7 of stage 2"); the parts add up to ``total``."""

    static: NonNegativeInt
    batch: NonNegativeInt
    messages: int
    activations: NonNegativeInt
    transient: NonNegativeInt
    moment: str

    @property
    def total(self) -> int:
        """The peak."""
        return self.static + self.batch + self.messages + self.activations + self.transient


class Uncertainty(Record):
    """How far a predicted step time may be off: relative standard deviations of independent errors.

    ``common`` to all candidates (the machine's pace), of the runtime's ``overhead`` per action (common to all, but it
    weighs more where actions are many and short), common to those of one ``placement``, and the candidate's ``own``.
    Of the ``moment`` is what a single measurement lies from the mean of many, on a machine that drifts.
    """

    common: NonNegativeFloat
    overhead: NonNegativeFloat
    placement: NonNegativeFloat = 0.0
    own: PositiveFloat
    moment: NonNegativeFloat = 0.0


class Revision(Record):
    """A prediction again, after other candidates were measured, with the 90 % interval of its measurement. ``sigma``:
    the relative standard deviation of what its step takes in the mean, beside the steps of those that were measured."""

    step_time_s: NonNegativeFloat
    step_time_low_s: NonNegativeFloat
    step_time_high_s: NonNegativeFloat
    throughput_seq_s: NonNegativeFloat
    sigma: NonNegativeFloat = 0.0


class Prediction(Record):
    """What the cost model says of one candidate; every list is indexed by rank.

    ``peak_memory_bytes`` are the allocator's, split in ``memory_split_bytes``; ``device_memory_bytes`` has what it
    takes from the device for that, and what is held there outside of torch. ``fits`` is about the latter.
    ``step_time_low_s`` to ``step_time_high_s`` is the 90 % interval that follows from ``uncertainty``.
    ``time_split_s`` is the mean of ``rank_time_split_s``.
    """

    step_time_s: NonNegativeFloat
    step_time_low_s: NonNegativeFloat
    step_time_high_s: NonNegativeFloat
    uncertainty: Uncertainty
    throughput_seq_s: NonNegativeFloat
    throughput_tokens_s: NonNegativeFloat | None
    bubble_fraction: NonNegativeFloat
    in_flight: tuple[NonNegativeInt, ...]
    peak_memory_bytes: tuple[NonNegativeInt, ...] | None
    memory_split_bytes: tuple[MemorySplit, ...] | None = None
    device_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    fits: bool | None
    time_split_s: TimeSplit
    rank_time_split_s: tuple[TimeSplit, ...] = ()
