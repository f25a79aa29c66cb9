"""Candidate and Prediction: what is chosen, and what the cost model says of it."""

from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autotune.records.base import Record
from autotune.records.job.placement import Placement
from autotune.records.job.recompute import Modes, Recompute, show_modes
from autotune.records.job.split import Split, show_split
from autotune.schedule_spec import SCHEDULES, ScheduleName


def schedule_text(
    schedule: str, virtual_stages: int, split: Split | None = None, recompute: Modes | None = None
) -> str:
    """Return ``Interleaved1F1B x2 cut 7,6,6,5``: the schedule, the number of stages per rank where it is not one, and
    the cut where it is not as even as possible; with ``recompute full`` where stages recompute."""
    return schedule_words(
        schedule, virtual_stages, show_split(split) if split else None, show_modes(recompute) if recompute else None
    )


def schedule_words(schedule: str, virtual_stages: int, split: str | None, recompute: str | None) -> str:
    """Return the same of a cut and of modes that are text already."""
    several = f" x{virtual_stages}" if virtual_stages > 1 else ""
    cut = f" cut {split}" if split else ""
    return schedule + several + cut + (f" recompute {recompute}" if recompute else "")


class Basis(StrEnum):
    """Where the times behind a prediction come from."""

    MEASURED = "measured"  # stages were timed at this micro-batch size
    INTERPOLATED = "interpolated"  # at a smaller one and at a larger one
    EXTRAPOLATED = "extrapolated"  # only at smaller ones, or only at larger ones
    ESTIMATED = "estimated"  # nothing was timed: from a device's data sheet


class Family(NamedTuple):
    """What candidates of one curve over m have in common: every dimension but m, the schedule apart from the rest."""

    schedule: ScheduleName
    rest: tuple[object, ...]

    @property
    def stand_in(self) -> "Family | None":
        """The family of what runs in the schedule's place where m is too small for it; None where nothing does."""
        other = SCHEDULES[self.schedule].stand_in
        return self._replace(schedule=other) if other else None


class Dimensions(Record):
    """What tells candidates apart, in the candidate itself and in every record that states it: ``micro_batches`` of
    ``micro_batch_size`` sequences under ``schedule``, and where its stages lie. A dimension is a field of this class
    and a row of ``search.space.DIMENSIONS``."""

    micro_batches: PositiveInt
    """Micro-batches per step (m)."""
    micro_batch_size: PositiveInt
    """Sequences per micro-batch (b)."""
    schedule: ScheduleName
    """Schedule, by torch's name."""
    virtual_stages: PositiveInt = 1
    """Stages per rank (v)."""
    split: tuple[PositiveInt, ...] | None = None
    """Layers of each stage, in the order of the model; null where they are cut as evenly as possible."""
    recompute: tuple[Recompute, ...] | None = None
    """What each stage computes again in its backward; null where no stage does."""

    @property
    def dimensions(self) -> dict[str, Any]:
        """The value of each dimension, by name, for another record that states them."""
        return {name: getattr(self, name) for name in Dimensions.model_fields}

    @property
    def family(self) -> Family:
        """Every dimension but m: what candidates of one curve have in common. A new field is in it by itself."""
        left_out = {"micro_batches", "micro_batch_size", "schedule"}
        return Family(self.schedule, tuple(value for name, value in self.dimensions.items() if name not in left_out))

    @property
    def schedule_text(self) -> str:
        """``Interleaved1F1B x2 cut 7,6,6,5``."""
        return schedule_text(self.schedule, self.virtual_stages, self.split, self.recompute)

    @property
    def label(self) -> str:
        """``m = 8 1F1B``, for a line of text."""
        return f"m = {self.micro_batches} {self.schedule_text}"

    @property
    def placement(self) -> Placement:
        """The way its stages lie on the ranks. Candidates of one placement are predicted from one profile in one way,
        and share its errors."""
        return Placement.of(self.schedule, self.virtual_stages, self.split, self.recompute)


class Candidate(Dimensions):
    """One way to run the step. ``sequences`` are real, of each of ``replicas`` pipelines; the ``padding`` rows that
    fill the last micro-batches are masked from the loss."""

    sequences: PositiveInt
    replicas: PositiveInt = 1

    @property
    def job_sequences(self) -> int:
        """Real sequences of a step of all replicas, of which throughput is told."""
        return self.replicas * self.sequences

    @property
    def padding(self) -> int:
        """Rows computed in vain: m·b - B."""
        return self.micro_batches * self.micro_batch_size - self.sequences


class TimeSplit(Record):
    """Seconds of one step by what they go to; the parts add up to the step (defined in ``predict.breakdown``)."""

    compute: NonNegativeFloat
    """Seconds on the batch's sequences, at the best seconds per sequence of any measured size."""
    padding: NonNegativeFloat = 0.0
    """Seconds on rows that only fill up the last micro-batches."""
    granularity: NonNegativeFloat = 0.0
    """Seconds more because this micro-batch size is slower per sequence than the best."""
    slowdown: NonNegativeFloat = 0.0
    """Seconds more because ranks share cores."""
    communication: NonNegativeFloat
    """Idle seconds that would not be if messages took no time."""
    imbalance: NonNegativeFloat = 0.0
    """Idle seconds that would not be if all stages took equally long."""
    bubble: NonNegativeFloat
    """Seconds that are idle all the same."""
    reduction: NonNegativeFloat = 0.0
    """Seconds that replicas take to add up their gradients, and that no backward hides."""
    optimizer: NonNegativeFloat
    """Seconds in the optimizer."""
    overhead: NonNegativeFloat
    """Seconds in torch's runtime."""


class MemorySplit(Record):
    """Bytes that one rank holds at its fullest moment; the parts add up to ``total``."""

    static: NonNegativeInt
    """Weights, gradients, optimizer state and constant buffers."""
    batch: NonNegativeInt
    """Token ids and targets of the batch."""
    messages: int
    """Receive buffers, and sent messages that are not released yet."""
    activations: NonNegativeInt
    """Activations in flight."""
    transient: NonNegativeInt
    """Workspace of the action that runs."""
    moment: str
    """The action at which the peak is reached, such as "F7 of stage 2"."""

    @property
    def total(self) -> int:
        """The peak."""
        return self.static + self.batch + self.messages + self.activations + self.transient


class Uncertainty(Record):
    """The error that a predicted step time may have: relative standard deviations of independent errors."""

    common: NonNegativeFloat
    """Common to all candidates: the machine's speed."""
    overhead: NonNegativeFloat
    """The runtime's overhead per action, common to all, which weighs more where actions are many and short."""
    placement: NonNegativeFloat = 0.0
    """Common to the candidates whose stages lie alike on the ranks."""
    own: PositiveFloat
    """The candidate's own."""
    moment: NonNegativeFloat = 0.0
    """The distance of one measurement from the long-run mean, because the machine drifts."""


class Revision(Record):
    """A prediction made again after other candidates were measured."""

    step_time_s: NonNegativeFloat
    """Predicted seconds of a step."""
    step_time_low_s: NonNegativeFloat
    """Lower end of the 90 % interval of its measurement, seconds."""
    step_time_high_s: NonNegativeFloat
    """Upper end of the 90 % interval of its measurement, seconds."""
    throughput_seq_s: NonNegativeFloat
    """Throughput, sequences per second."""
    sigma: NonNegativeFloat = 0.0
    """Relative standard deviation of its mean step, beside the steps of the candidates that were measured."""


class Prediction(Record):
    """The cost model's prediction for one candidate; every list is indexed by rank."""

    step_time_s: NonNegativeFloat
    """Predicted seconds of a step."""
    step_time_low_s: NonNegativeFloat
    """Lower end of the 90 % interval, seconds."""
    step_time_high_s: NonNegativeFloat
    """Upper end of the 90 % interval, seconds."""
    basis: Basis = Basis.MEASURED
    """Where the times of its micro-batch size come from."""
    uncertainty: Uncertainty
    """The errors that the interval follows from."""
    throughput_seq_s: NonNegativeFloat
    """Throughput, sequences per second."""
    throughput_tokens_s: NonNegativeFloat | None
    """Throughput, tokens per second; null where the tokens per sequence are not known."""
    model_flops_utilisation: NonNegativeFloat | None = None
    """Operations of the model, without recomputation, per second and device, as a share of what the device can do; null
    where model or device is not known."""
    bubble_fraction: NonNegativeFloat
    """Share of p x step time in which devices are idle."""
    in_flight: tuple[NonNegativeInt, ...]
    """By rank, the most micro-batches in flight."""
    peak_memory_bytes: tuple[NonNegativeInt, ...] | None
    """By rank, the allocator's peak; null where the profile does not tell."""
    memory_split_bytes: tuple[MemorySplit, ...] | None = None
    """By rank, the parts of that peak."""
    device_memory_bytes: tuple[NonNegativeInt, ...] | None = None
    """By rank, what is taken from the device for that, and what is held there outside of torch."""
    fits: bool | None
    """True where ``device_memory_bytes`` is within the memory limit; null where either is not known."""
    time_split_s: TimeSplit
    """The parts of the mean rank's step."""
    rank_time_split_s: tuple[TimeSplit, ...] = ()
    """The parts of the step, by rank."""

    @property
    def bubble_share(self) -> float:
        """Share of the step that the mean rank idles because of the schedule alone; ``bubble_fraction`` is all that it
        idles."""
        return self.time_split_s.bubble / self.step_time_s if self.step_time_s else 0.0
