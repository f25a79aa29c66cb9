"""What the controller asks of the ranks, and what they answer: JSON records, so that nothing is ever unpickled.

A command goes to every rank; a rank that is not among ``active`` answers at once.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, model_validator

from autotune.config import Workload
from autotune.pipeline.outcome import Failure
from autotune.records import Record

PipelineScheduleName = Literal["GPipe", "1F1B"]


class Describe(Record):
    """Build the rank's stage without memory; answers a StageFacts."""

    kind: Literal["describe"] = "describe"
    workload: Workload


class Build(Record):
    """Build the rank's stage and optimizer on its device; answers a StageFacts with the allocator's own bytes."""

    kind: Literal["build"] = "build"
    workload: Workload


class TimeStage(Record):
    """Time forward and backward, one micro-batch at a time, sizes in turn; answers list[StageTime]."""

    kind: Literal["time_stage"] = "time_stage"
    active: tuple[NonNegativeInt, ...]
    micro_batch_sizes: tuple[PositiveInt, ...]
    budget_s: PositiveFloat


class MeasureMemory(Record):
    """Measure activation and transient bytes of one micro-batch of each size; answers list[StageMemory]."""

    kind: Literal["measure_memory"] = "measure_memory"
    micro_batch_sizes: tuple[PositiveInt, ...]


class TimeOptimizer(Record):
    """Time the optimizer step with its zeroing of gradients; answers an OptimizerCost."""

    kind: Literal["time_optimizer"] = "time_optimizer"
    active: tuple[NonNegativeInt, ...]


class Contend(Record):
    """Run passes on all active ranks at once for ``seconds``; answers seconds per pass."""

    kind: Literal["contend"] = "contend"
    active: tuple[NonNegativeInt, ...]
    micro_batch_size: PositiveInt
    seconds: PositiveFloat


class Ping(Record):
    """Send ``there_bytes`` from rank ``source`` to ``target`` and ``back_bytes`` back; answers round trip seconds."""

    kind: Literal["ping"] = "ping"
    source: NonNegativeInt
    target: NonNegativeInt
    there_bytes: PositiveInt
    back_bytes: PositiveInt
    repeats: PositiveInt


class Prepare(Record):
    """Make ready for steps of one candidate, and run the first, untimed; answers a Primed.

    ``empty``: stages that compute nothing but send messages of the real sizes, to see what the runtime itself costs.
    """

    kind: Literal["prepare"] = "prepare"
    schedule: PipelineScheduleName
    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    sequences: PositiveInt
    empty: bool = False


class Step(Record):
    """Run one timed step of the prepared candidate; answers a StepTimes."""

    kind: Literal["step"] = "step"


Command = Annotated[
    Describe | Build | TimeStage | MeasureMemory | TimeOptimizer | Contend | Ping | Prepare | Step,
    Field(discriminator="kind"),
]
COMMAND: TypeAdapter[Command] = TypeAdapter(Command)


class StageFacts(Record):
    """One stage as built. ``static_bytes``: weights, gradients, optimizer state, constant buffers."""

    layers: NonNegativeInt
    parameters: NonNegativeInt
    static_bytes: NonNegativeInt
    batch_statistics: bool


class StageTime(Record):
    """Seconds of one micro-batch of ``micro_batch_size`` sequences on one stage, alone on its host.

    Either ``t_b`` and ``t_w`` (input gradient, weight gradient) or the fused backward ``t_bw`` is given. ``samples_*``
    are the raw passes whose medians the times are.
    """

    micro_batch_size: PositiveInt
    t_f: NonNegativeFloat
    t_b: NonNegativeFloat | None = None
    t_w: NonNegativeFloat | None = None
    t_bw: NonNegativeFloat | None = None
    samples_f: tuple[NonNegativeFloat, ...] = ()
    samples_bw: tuple[NonNegativeFloat, ...] = ()

    @model_validator(mode="after")
    def _one_backward(self) -> Self:
        if (self.t_bw is None) == (self.t_b is None and self.t_w is None):
            raise ValueError("give either t_bw (fused backward) or t_b with t_w, not both and not neither")
        return self

    @property
    def backward(self) -> float:
        """Seconds of the whole backward, t_b + t_w."""
        return self.t_bw if self.t_bw is not None else (self.t_b or 0.0) + (self.t_w or 0.0)


class StageMemory(Record):
    """Bytes of one micro-batch on one stage.

    ``activation_bytes``: held from its forward to its backward, without the received input (a communication buffer).
    ``transient_bytes``: the most that a forward or backward holds above that while it runs.
    """

    micro_batch_size: PositiveInt
    activation_bytes: NonNegativeInt
    transient_bytes: NonNegativeInt = 0


class OptimizerCost(Record):
    """Median seconds of one optimizer step, and the most bytes it holds while it runs."""

    seconds: float
    transient_bytes: NonNegativeInt


class Primed(Record):
    """The first step of a candidate: the most bytes this rank's allocator held at once during it."""

    peak_memory_bytes: NonNegativeInt


class StepTimes(Record):
    """Start and end of one step on this rank, on the host's monotonic clock; the loss where the last stage is.

    ``cpu_s``: processor seconds that all threads of the rank used meanwhile.
    """

    start_s: float
    end_s: float
    cpu_s: float
    loss: float | None = None


class Reply(Record):
    """A rank's answer: a JSON ``value``, or the ``failure`` that kept it from answering."""

    value: object = None
    failure: Failure | None = None
