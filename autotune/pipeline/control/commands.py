"""The controller's commands to the ranks, and their answers: JSON records, so that nothing is ever unpickled.

A command goes to every rank; a rank that is not among ``active`` answers at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import AnyWorkload
from autotune.records.plain import NonNegativeFloat, NonNegativeInt, Plain, PositiveInt
from autotune.schedule_spec import ScheduleName

FEWEST_SAMPLES = 3
"""The fewest timings of each micro-batch size, in all rounds of profiling together."""

LONGEST_S = 86400.0
"""The most seconds that a command is given."""

ROUND = Placement()
"""One stage on each rank."""


@dataclass(frozen=True, kw_only=True)
class Describe(Plain):
    """Build the rank's stages without memory; answers list[StageFacts], in the order of the stages."""

    kind: Literal["describe"] = "describe"
    workload: AnyWorkload
    placement: Placement = ROUND


@dataclass(frozen=True, kw_only=True)
class Build(Plain):
    """Build the rank's stages and optimizer on its device; answers list[StageFacts] with the allocator's own bytes."""

    kind: Literal["build"] = "build"
    workload: AnyWorkload
    placement: Placement = ROUND


@dataclass(frozen=True, kw_only=True)
class TimeStages(Plain):
    """Time forward and backward of ``stages``, one micro-batch at a time, sizes in turn, each ``fewest`` times at
    least; answers list[list[StageTime]], one list for each of them that the rank holds, ascending in stage and size.
    ``active``: the ranks that do, None for all, as in what follows.

    ``split``: time the backward for inputs and for weights apart as well.
    """

    kind: Literal["time_stages"] = "time_stages"
    stages: tuple[NonNegativeInt, ...]
    micro_batch_sizes: tuple[PositiveInt, ...]
    fewest: tuple[PositiveInt, ...]
    split: bool = False
    active: tuple[NonNegativeInt, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureMemory(Plain):
    """Measure what one micro-batch of each size takes; answers list[list[StageMemory]], one list per stage of the rank.

    ``split``: also what is held between the backward for inputs and that for weights.
    """

    kind: Literal["measure_memory"] = "measure_memory"
    micro_batch_sizes: tuple[PositiveInt, ...]
    split: bool = False
    active: tuple[NonNegativeInt, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureLayers(Plain):
    """Measure one layer of each kind by itself, as a stage of its own that recomputes by ``mode``; answers
    list[LayerProfile]. Layers are alike whose weights have the same names and shapes."""

    kind: Literal["measure_layers"] = "measure_layers"
    active: tuple[NonNegativeInt, ...]
    micro_batch_sizes: tuple[PositiveInt, ...]
    split: bool = False
    mode: Recompute = Recompute.NONE


@dataclass(frozen=True, kw_only=True)
class TimeOptimizer(Plain):
    """Time the optimizer step with its zeroing of gradients; answers an OptimizerCost."""

    kind: Literal["time_optimizer"] = "time_optimizer"
    active: tuple[NonNegativeInt, ...]


@dataclass(frozen=True, kw_only=True)
class Ping(Plain):
    """Send ``there_bytes`` from rank ``source`` to ``target`` and ``back_bytes`` back; answers round trip seconds."""

    kind: Literal["ping"] = "ping"
    source: NonNegativeInt
    target: NonNegativeInt
    there_bytes: PositiveInt
    back_bytes: PositiveInt
    repeats: PositiveInt


@dataclass(frozen=True, kw_only=True)
class Exchange(Plain):
    """Send ``message_bytes`` over every one of ``links`` (source, target) at once; answers how long each repeat took
    until the rank's own had been sent and received, seconds. Ranks of no link answer an empty list."""

    kind: Literal["exchange"] = "exchange"
    links: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    message_bytes: PositiveInt
    repeats: PositiveInt


@dataclass(frozen=True, kw_only=True)
class Reduce(Plain):
    """Add up ``message_bytes`` among the replicas' ranks at ``place`` in their pipelines; answers the seconds of each
    repeat, of other ranks an empty list."""

    kind: Literal["reduce"] = "reduce"
    place: NonNegativeInt
    message_bytes: PositiveInt
    repeats: PositiveInt


@dataclass(frozen=True, kw_only=True)
class ReplayStage(Plain):
    """A stage that computes nothing, but waits as long as a recorded one took and sends messages of its size."""

    t_f: NonNegativeFloat = 0.0
    t_b: NonNegativeFloat = 0.0
    t_w: NonNegativeFloat = 0.0
    optimizer_s: NonNegativeFloat = 0.0
    message_bytes: NonNegativeInt = 0


@dataclass(frozen=True, kw_only=True)
class Prepare(Plain):
    """Make ready for steps of one candidate, and run the first, untimed; answers a Primed. ``sequences``: real ones of
    each of ``replicas`` pipelines.

    ``replay``: one per stage of the model, which then take the place of the model's own. They need no Build.
    """

    kind: Literal["prepare"] = "prepare"
    schedule: ScheduleName
    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    sequences: PositiveInt
    replicas: PositiveInt = 1
    virtual_stages: PositiveInt = 1
    split: tuple[PositiveInt, ...] | None = None
    recompute: tuple[Recompute, ...] | None = None
    replay: tuple[ReplayStage, ...] = ()

    @property
    def placement(self) -> Placement:
        """The way the stages must lie on the ranks for this schedule."""
        return Placement.of(self.schedule, self.virtual_stages, self.split, self.recompute)


@dataclass(frozen=True, kw_only=True)
class Step(Plain):
    """Run one timed step of the prepared candidate; answers a StepTimes. ``record``: with its actions."""

    kind: Literal["step"] = "step"
    record: bool = False


Command = (
    Describe
    | Build
    | TimeStages
    | MeasureMemory
    | MeasureLayers
    | TimeOptimizer
    | Ping
    | Exchange
    | Reduce
    | Prepare
    | Step
)


@dataclass(frozen=True, kw_only=True)
class StageFacts(Plain):
    """One stage as built. ``static_bytes``: weights, gradients, optimizer state, constant buffers. ``output_bytes``:
    what it sends to the next stage for one sequence, 0 of the last. ``kept_output_bytes``: what the last keeps of each
    sequence until the step ends, 0 of the others, and where torch lets go of it. ``bucket_bytes``: of the gradients
    that replicas add up together, in the order in which a backward completes them. ``reduces_in_backward``: whether
    whole backwards do that, the last of a step."""

    layers: NonNegativeInt
    parameters: NonNegativeInt
    static_bytes: NonNegativeInt
    output_bytes: NonNegativeInt = 0
    kept_output_bytes: NonNegativeInt = 0
    batch_statistics: bool
    bucket_bytes: tuple[PositiveInt, ...] = ()
    reduces_in_backward: bool = True


@dataclass(frozen=True, kw_only=True)
class OptimizerCost(Plain):
    """Median seconds of one optimizer step over all stages of a rank, and the most bytes it holds while it runs."""

    seconds: float
    transient_bytes: NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class Primed(Plain):
    """The first step of a candidate: the most bytes this rank's allocator held at once during it.

    ``reserved_bytes``: what it had taken from the device for that. ``outside_bytes``: held on the device by others, the
    CUDA context and NCCL's buffers first of all. None where the device has no such thing. ``held_bytes``: as after any
    step.

    The step began with the weights that the stages were built with: its ``loss``, where the last stage is, and the sum
    of its gradients' squares over the rank's parameters are those of any candidate with the same batch. These and what
    is held are None where stages only wait, which hold nothing of what the recorded ones held.
    """

    peak_memory_bytes: NonNegativeInt | None = None
    loss: float | None = None
    gradient_square_sum: NonNegativeFloat | None = None
    reserved_bytes: NonNegativeInt | None = None
    outside_bytes: NonNegativeInt | None = None
    held_bytes: NonNegativeInt | None = None


ActionName = Literal["forward", "backward", "input_gradient", "weight_gradient"]


@dataclass(frozen=True, kw_only=True)
class RecordedAction(Plain):
    """The real beginning and end of an action on a rank, on the host's monotonic clock."""

    name: ActionName
    stage: NonNegativeInt
    micro_batch: NonNegativeInt
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class StepTimes(Plain):
    """Start and end of one step on this rank, on its host's monotonic clock; the loss where the last stage is.

    ``held_bytes``: what was held when it had ended, by a count that begins anywhere; None where the device cannot tell.
    ``alloc_retries``: how often the allocator had to give back what it kept before it could go on.
    ``actions``: in the order in which they ran, where the step was recorded.
    """

    start_s: float
    end_s: float
    loss: float | None = None
    held_bytes: NonNegativeInt | None = None
    alloc_retries: NonNegativeInt = 0
    actions: tuple[RecordedAction, ...] = ()

    def shifted(self, by_s: float) -> "StepTimes":
        """Return the times on a clock that shows ``by_s`` more."""

        def later(record: Plain) -> dict[str, Any]:
            return {name: getattr(record, name) + by_s for name in ("start_s", "end_s")}

        actions = tuple(replace(action, **later(action)) for action in self.actions)
        return replace(self, **later(self), actions=actions)


def step_seconds(step: Sequence[StepTimes]) -> float:
    """Return the seconds from the first rank's start to the last one's end; ``step`` holds what every rank answered."""
    return max(rank.end_s for rank in step) - min(rank.start_s for rank in step)


@dataclass(frozen=True, kw_only=True)
class Reply(Plain):
    """A rank's answer: a JSON ``value``, or the ``failure`` that kept it from answering."""

    value: object = None
    failure: Failure | None = None
