"""The Profile: what was measured of each stage and link, enough to predict any candidate. Hand-writable."""

from bisect import bisect_left
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from autotune.config import WorkloadFacts
from autotune.pipeline.commands import StageMemory, StageTime
from autotune.records import SCHEMA_VERSION, Record, read_record


class Environment(Record):
    """The machine and software behind the figures. ``memory_bytes`` is what one rank may use."""

    device: str | None = None
    devices: tuple[str, ...] = ()
    cores: PositiveInt | None = None
    memory_bytes: PositiveInt | None = None
    torch_version: str | None = None
    python_version: str | None = None
    hostname: str | None = None
    platform: str | None = None
    cuda_version: str | None = None
    nccl_version: str | None = None
    driver_version: str | None = None


class StageProfile(Record):
    """One stage. ``static_bytes``: weights, gradients, optimizer state and constant buffers.

    ``batch_statistics``: a layer (BatchNorm) learns from the micro-batch as a whole, so its size matters.
    """

    layers: NonNegativeInt | None = None
    static_bytes: NonNegativeInt = 0
    batch_statistics: bool = False
    time_s: tuple[StageTime, ...] = Field(min_length=1)
    memory: tuple[StageMemory, ...] = ()
    optimizer_s: NonNegativeFloat = 0.0
    optimizer_transient_bytes: NonNegativeInt = 0

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Self:
        for name, rows in (("time_s", self.time_s), ("memory", self.memory)):
            sizes = [row.micro_batch_size for row in rows]
            if sizes != sorted(set(sizes)):
                raise ValueError(f"{name}: rows must ascend in micro_batch_size, each once (given: {sizes})")
        return self


class Link(Record):
    """One direction of one boundary: activations go from stage s to s+1, gradients back."""

    from_: NonNegativeInt = Field(alias="from")
    to: NonNegativeInt
    latency_s: NonNegativeFloat = 0.0
    bandwidth_bytes_s: PositiveFloat | None = None

    model_config = Record.model_config | {"populate_by_name": True}

    def seconds(self, message_bytes: int) -> float:
        """Seconds that one message is on its way."""
        return self.latency_s + (message_bytes / self.bandwidth_bytes_s if self.bandwidth_bytes_s else 0.0)


class MessageSize(Record):
    """What crosses a stage boundary for one micro-batch."""

    micro_batch_size: PositiveInt
    bytes: NonNegativeInt


class Shared(Record):
    """Ranks that share ``resources`` cores: with k ranks active at once each runs ``slowdown[k - 1]`` times slower."""

    resources: PositiveInt
    slowdown: tuple[PositiveFloat, ...] = Field(min_length=1)


class Profile(Record):
    """Everything a prediction needs. Only ``stages[].time_s`` is required; what is absent is zero or unlimited."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    kind: Literal["autotune.profile"] = "autotune.profile"
    created: str | None = None
    environment: Environment = Environment()
    workload: WorkloadFacts = WorkloadFacts()
    stages: tuple[StageProfile, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    message_bytes: tuple[MessageSize, ...] = ()
    shared: Shared | None = None
    step_overhead_s: NonNegativeFloat = 0.0
    message_overhead_s: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _links_join_neighbours(self) -> Self:
        for link in self.links:
            if abs(link.from_ - link.to) != 1 or max(link.from_, link.to) >= len(self.stages):
                raise ValueError(
                    f"links: {link.from_} -> {link.to} does not join neighbours among {len(self.stages)} stages"
                )
        return self


def interpolate(sizes: list[int], values: list[float], size: int) -> float:
    """The piecewise linear curve through (sizes, values) at ``size``; beyond the ends the last piece goes on.

    Below the smallest size the value is not scaled down: a smaller micro-batch is never assumed to be cheaper than the
    line through the two smallest says, nor below zero.
    """
    if len(sizes) == 1:
        return values[0] * size / sizes[0]
    right = min(max(bisect_left(sizes, size), 1), len(sizes) - 1)
    left = right - 1
    slope = (values[right] - values[left]) / (sizes[right] - sizes[left])
    return max(0.0, values[left] + slope * (size - sizes[left]))


def read_profile(path: Path) -> Profile:
    """Reads a profile; raises InputError with path and field."""
    return read_record(path, Profile, "autotune.profile")
