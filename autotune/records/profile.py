"""The Profile: what was measured of each stage and link, enough to predict any candidate. Hand-writable."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from autotune.records.base import SCHEMA_VERSION, Record, TypedRecord, read_record, write_record
from autotune.records.job.environment import Environment, group_numbers
from autotune.records.job.recompute import Modes, Recompute
from autotune.records.job.workload import WorkloadFacts
from autotune.records.stage_costs import LayerProfile, StageMemory, StageTime
from autotune.schedule_spec import ScheduleName

ROUNDS = 3
"""The rounds of profiling: machines drift, and what is compared must be measured in turns."""

NOTICEABLE = 1.05
"""The factor from which on messages between hosts that take longer together than alone are more than noise."""


class StageProfile(TypedRecord):
    """One stage."""

    layers: NonNegativeInt | None = None
    """Layers of the stage."""
    static_bytes: NonNegativeInt = 0
    """Weights, gradients, optimizer state and constant buffers."""
    batch_statistics: bool = False
    """True where a layer (BatchNorm) learns from the micro-batch as a whole, so that its size matters."""
    time_s: tuple[StageTime, ...] = Field(min_length=1)
    """Times by micro-batch size, ascending."""
    memory: tuple[StageMemory, ...] = ()
    """Memory by micro-batch size, ascending."""
    optimizer_s: NonNegativeFloat = 0.0
    """Seconds of the optimizer's step."""
    optimizer_transient_bytes: NonNegativeInt = 0
    """The most bytes that the optimizer holds while it runs."""
    kept_output_bytes: NonNegativeInt = 0
    """Bytes that the last stage keeps of each sequence until the step ends, where torch is older than 2.10."""
    bucket_bytes: tuple[PositiveInt, ...] = ()
    """Bytes of the gradients that replicas add up together, in the order in which a backward completes them; nothing
    where there is one replica."""

    def seconds(self, micro_batch_size: int, part: Callable[[StageTime], float]) -> float:
        """Return ``part`` of the stage's times (t_f, say) at any micro-batch size, between and beyond the measured
        ones; below the smallest one never less than in proportion to it."""
        sizes = [row.micro_batch_size for row in self.time_s]
        line = interpolate(sizes, [part(row) for row in self.time_s], micro_batch_size)
        if micro_batch_size >= sizes[0]:
            return line
        return max(line, part(self.time_s[0]) * micro_batch_size / sizes[0])

    def bytes(self, micro_batch_size: int, part: Callable[[StageMemory], int]) -> float:
        """Return ``part`` of the stage's memory at any micro-batch size; there must be memory rows."""
        sizes = [row.micro_batch_size for row in self.memory]
        return interpolate(sizes, [float(part(row)) for row in self.memory], micro_batch_size)

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Self:
        for name, rows in (("time_s", self.time_s), ("memory", self.memory)):
            sizes = [row.micro_batch_size for row in rows]
            if sizes != sorted(set(sizes)):
                raise ValueError(f"{name}: rows must ascend in micro_batch_size, each once (given: {sizes})")
        return self


class LinkTime(Record):
    """Messages of one size on a link."""

    bytes: PositiveInt
    """Bytes of the message."""
    seconds: NonNegativeFloat
    """Seconds that it is on its way while nothing else is."""


class Carried(Record):
    """Messages of any size, from those that were timed."""

    latency_s: NonNegativeFloat = 0.0
    """Seconds of an empty message."""
    bandwidth_bytes_s: PositiveFloat | None = None
    """Bytes per second while nothing else is under way; null is without limit."""
    times: tuple[LinkTime, ...] = ()
    """Messages as timed, ascending in bytes; where there are none, latency and bandwidth say how long one takes."""

    def seconds(self, message_bytes: int) -> float:
        """Return seconds that one message is on its way, alone: on the line between those timed, beyond the largest on
        that through the last two."""
        if self.times:
            sizes, values = [row.bytes for row in self.times], [row.seconds for row in self.times]
            return interpolate([0, *sizes], [self.latency_s, *values], message_bytes)
        return self.latency_s + (message_bytes / self.bandwidth_bytes_s if self.bandwidth_bytes_s else 0.0)

    @model_validator(mode="after")
    def _times_ascend(self) -> Self:
        sizes = [row.bytes for row in self.times]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"times: rows must ascend in bytes, each once (given: {sizes})")
        return self


class Reduction(Carried):
    """The reduction of gradients among the replicas that hold the same stages, of messages of so many bytes each."""

    in_backward: bool = True
    """True where whole backwards reduce, the last of a step; otherwise, and after split ones, a rank reduces when its
    actions are done."""


class Link(Carried):
    """One direction between two ranks whose stages are neighbours: activations go one way, gradients back."""

    from_: NonNegativeInt = Field(alias="from")
    """Rank that sends."""
    to: NonNegativeInt
    """Rank that receives."""
    together_bytes_s: PositiveFloat | None = None
    """Bytes per second while all links carry a message at once, both ways: of links between hosts, which may share
    their host's way out, and of those between GPUs. Null where not measured."""

    model_config = Record.model_config | {"populate_by_name": True}

    def seconds_together(self, message_bytes: int) -> float:
        """Return seconds that it is on its way while all links carry a message; as alone where not measured."""
        alone = self.seconds(message_bytes)
        return max(alone, self.latency_s + message_bytes / self.together_bytes_s) if self.together_bytes_s else alone


class MessageSize(Record):
    """The message that crosses a stage boundary for one micro-batch."""

    micro_batch_size: PositiveInt
    """Sequences per micro-batch."""
    bytes: NonNegativeInt
    """Bytes of the message."""


class SharedCores(Record):
    """Ranks that share the cores of a host."""

    resources: PositiveInt
    """Cores that are shared."""
    slowdown: tuple[PositiveFloat, ...] = Field(min_length=1)
    """``slowdown[k - 1]``: how many times slower each rank runs with k ranks active at once."""

    @staticmethod
    def of(resources: int, ranks: int, contention: float) -> "SharedCores":
        """Return ranks that take turns on the cores, and take ``contention`` times longer wherever more than one is
        active."""
        turns = [contention * max(1.0, k / resources) for k in range(2, ranks + 1)]
        return SharedCores(resources=resources, slowdown=(1.0, *turns))

    @staticmethod
    def on(environment: Environment, ranks: int) -> "SharedCores | None":
        """Return what so many ranks share on their fullest host; None where each has a GPU."""
        if environment.device != "cpu":
            return None
        return SharedCores.of(environment.cores or 1, environment.most_on_a_host(ranks), contention=1.0)

    @property
    def contention(self) -> float:
        """The factor by which two ranks slow each other beyond taking turns; 1 for a single rank."""
        return self.slowdown[1] / max(1.0, 2 / self.resources) if len(self.slowdown) > 1 else 1.0


class Calibration(Record):
    """A pipelined run made while profiling; what it took beyond the model is the runtime's cost per action."""

    schedule: ScheduleName
    """Schedule, by torch's name."""
    micro_batches: PositiveInt
    """Micro-batches per step (m)."""
    micro_batch_size: PositiveInt
    """Sequences per micro-batch (b)."""
    wait_s: NonNegativeFloat | None = None
    """Seconds that each stage waited for a forward, and as long for a backward, instead of computing: as asked for, or
    on a GPU as measured. Null where it computed."""
    step_times_s: tuple[PositiveFloat, ...] = Field(min_length=1)
    """Seconds of each step."""
    busy_s: tuple[PositiveFloat, ...] = ()
    """Seconds that all ranks together spent inside their actions, by step."""
    gap_s: tuple[NonNegativeFloat, ...] = ()
    """Of each step, the seconds between two actions of a rank where little more than the runtime lay between them (the
    lower quartile)."""

    @property
    def apart(self) -> float:
        """The longest median step of the rounds of profiling over the shortest."""
        count = len(self.step_times_s) // ROUNDS
        if not count:
            return 1.0
        rounds = [median(self.step_times_s[at * count : (at + 1) * count]) for at in range(ROUNDS)]
        return max(rounds) / min(rounds)

    @staticmethod
    def merged(runs: Sequence["Calibration"]) -> "Calibration":
        """Return one run for the same run made several times."""
        names = ("step_times_s", "busy_s", "gap_s")
        joined = {name: tuple(one for run in runs for one in getattr(run, name)) for name in names}
        waits = [run.wait_s for run in runs if run.wait_s is not None]
        return runs[0].model_copy(update=joined | {"wait_s": median(waits) if waits else None})


class PaperEstimate(Record):
    """Where a profile that nobody measured comes from, and how far a step predicted from it may be off."""

    device: str
    """Device whose data sheet the times follow from."""
    common: NonNegativeFloat
    """Relative standard deviation common to all micro-batch sizes, from published runs."""
    own: NonNegativeFloat
    """Relative standard deviation of each micro-batch size beside that, from published runs."""
    shared_buffers: bool = False
    """Whether there is one receive buffer for each neighbour, and not one for every micro-batch, as torch has them."""


class Profile(TypedRecord):
    """Everything a prediction needs. Only ``stages[].time_s`` is required; what is absent is zero or unlimited."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    """Form of the file."""
    kind: Literal["autotune.profile"] = "autotune.profile"
    """Which file it is."""
    created: str | None = None
    """Time at which it was measured, ISO 8601."""
    environment: Environment = Environment()
    """Machine and software that it was measured on."""
    workload: WorkloadFacts = WorkloadFacts()
    """The training job."""
    virtual_stages: PositiveInt = 1
    """Stages per rank: the S stages lie on S / v ranks."""
    recompute: tuple[Recompute, ...] | None = None
    """What each stage computed again in its backward; null where no stage did."""
    stages: tuple[StageProfile, ...] = Field(min_length=1)
    """The stages, in the order of the model."""
    layers: tuple[LayerProfile, ...] = ()
    """The layers by themselves, one of each kind, by which another cut is predicted; empty where not measured."""
    links: tuple[Link, ...] = ()
    """The links between ranks."""
    reduction: Reduction | None = None
    """How long replicas take to add up gradients; null where there is one, or not measured."""
    message_bytes: tuple[MessageSize, ...] = ()
    """The messages that cross a stage boundary, by micro-batch size."""
    shared: SharedCores | None = None
    """How ranks that share cores slow each other; null where they do not."""
    drift: NonNegativeFloat = 0.0
    """Relative standard deviation of the same work between moments of profiling."""
    no_room_for: PositiveInt | None = None
    """Smallest micro-batch size of which some device could not hold one micro-batch; null where all had room."""
    reserved_over_allocated: Annotated[float, Field(ge=1.0)] = 1.0
    """How many times more the allocator takes from the device than it hands out (fragmentation), of what is not
    static."""
    segments_bytes: NonNegativeInt = 0
    """What it takes beyond that whatever the candidate, in segments that it does not fill."""
    outside_bytes: NonNegativeInt | tuple[NonNegativeInt, ...] = 0
    """Held on a device outside of torch's allocator: one number for all devices, or by rank."""
    step_overhead_s: NonNegativeFloat = 0.0
    """Seconds that torch's runtime takes once per step."""
    action_overhead_s: NonNegativeFloat = 0.0
    """Seconds that it takes for every action."""
    message_overhead_s: NonNegativeFloat = 0.0
    """Seconds that it takes at either end of a message."""
    host_action_s: NonNegativeFloat = 0.0
    """CPU seconds that it takes for every action beside a GPU, which computes meanwhile."""
    estimate: PaperEstimate | None = None
    """Where its times come from if they were computed; null where they were measured."""
    calibrations: tuple[Calibration, ...] = ()
    """The runs that showed these overheads, and ``shared``."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write profile.json; raise InputError where it cannot be written."""
        write_record(Path(path), self)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what fits in a line: the whole is ``model_dump()``."""
        yield "stages", len(self.stages)
        yield "ranks", self.ranks
        yield "micro_batch_sizes", tuple(row.micro_batch_size for row in self.stages[0].time_s)

    @property
    def ranks(self) -> int:
        """p, the number of ranks."""
        return len(self.stages) // self.virtual_stages

    @property
    def devices(self) -> int:
        """Ranks of all replicas together."""
        return self.ranks * self.workload.replicas

    @property
    def hosts(self) -> tuple[int, ...]:
        """A number for the host of each rank of the first replica; all the same where the environment names none."""
        return group_numbers(self.environment.hosts[: self.ranks]) or (0,) * self.ranks

    @property
    def slowdown(self) -> tuple[float, ...] | None:
        """How many times slower a rank runs while 1, 2, ... of its pipeline's ranks on the host are active, and those
        of the replicas there with them; None where ranks do not share cores."""
        if self.shared is None:
            return None
        row, own = self.shared.slowdown, max(Counter(self.hosts).values())
        together = max(1, self.environment.most_on_a_host(self.devices) // own)
        return row[together - 1 :: together] or (row[-1] * together / len(row),)

    @property
    def link_contention(self) -> tuple[float, ...]:
        """The factor by which messages take longer while 1, 2, ... of them leave the same host for another at once.

        Measured for one, and for as many as there are links from one host to others; in between a straight line.
        Nothing where they were not measured together, or hardly disturb each other.
        """
        hosts, out = self.hosts, defaultdict[int, list[float]](list)
        for link in self.links:
            is_out = hosts[link.from_] != hosts[link.to]
            if is_out and link.bandwidth_bytes_s and link.together_bytes_s:
                out[hosts[link.from_]].append(link.bandwidth_bytes_s / link.together_bytes_s)
        most = max(map(len, out.values()), default=0)
        times = fmean(chain.from_iterable(shares for shares in out.values() if len(shares) == most)) if most else 1.0
        if most < 2 or times < NOTICEABLE:
            return ()
        return tuple(1 + (times - 1) * more / (most - 1) for more in range(most))

    def outside_of(self, rank: int) -> int:
        """Return bytes of the device of ``rank`` that are held outside of torch's allocator."""
        return self.outside_bytes if isinstance(self.outside_bytes, int) else self.outside_bytes[rank]

    def message_size(self, micro_batch_size: int) -> int:
        """Return bytes that cross a boundary for one micro-batch; 0 where the profile does not say."""
        rows = self.message_bytes
        sizes, values = [row.micro_batch_size for row in rows], [float(row.bytes) for row in rows]
        return round(interpolate(sizes, values, micro_batch_size)) if rows else 0

    @model_validator(mode="after")
    def _stages_fill_the_ranks(self) -> Self:
        if len(self.stages) % self.virtual_stages:
            raise ValueError(
                f"virtual_stages: {len(self.stages)} stages cannot lie {self.virtual_stages} to a rank; give a divisor"
            )
        return self

    @model_validator(mode="after")
    def _every_rank_has_a_host(self) -> Self:
        if len(self.environment.hosts) not in (0, self.devices):
            raise ValueError(
                f"environment.hosts: name the host of each of the {self.devices} ranks, or none (given:"
                f" {len(self.environment.hosts)} names)"
            )
        return self

    @model_validator(mode="after")
    def _every_rank_has_its_outside_bytes(self) -> Self:
        if not isinstance(self.outside_bytes, int) and len(self.outside_bytes) != self.ranks:
            raise ValueError(
                f"outside_bytes: give one number for all devices, or one for each of the {self.ranks} ranks (given:"
                f" {len(self.outside_bytes)} numbers)"
            )
        return self

    @model_validator(mode="after")
    def _links_join_neighbours(self) -> Self:
        for link in self.links:
            apart = abs(link.from_ - link.to)
            if max(link.from_, link.to) >= self.ranks or apart not in (1, self.ranks - 1):
                raise ValueError(f"links: {link.from_} -> {link.to} does not join neighbours among {self.ranks} ranks")
        return self


def interpolate(sizes: list[int], values: list[float], size: int) -> float:
    """Return the piecewise linear curve through (sizes, values) at ``size``; beyond the ends the last piece goes on.

    Below the smallest size the value is not scaled down: a smaller micro-batch is never assumed to be cheaper than the
    line through the two smallest says, nor below zero.
    """
    if len(sizes) == 1:
        return values[0] * size / sizes[0]
    right = min(max(bisect_left(sizes, size), 1), len(sizes) - 1)
    left = right - 1
    slope = (values[right] - values[left]) / (sizes[right] - sizes[left])
    return max(0.0, values[left] + slope * (size - sizes[left]))


def profile_of(profiles: Sequence[Profile], virtual_stages: int, recompute: Modes | None) -> Profile | None:
    """Return what stages cost that lie ``virtual_stages`` to a rank and recompute so; None where that is not known.

    Where stages recompute differently, each comes from the one of ``profiles`` that was measured with its mode.
    """
    of_cut = [one for one in profiles if one.virtual_stages == virtual_stages]
    same = next((one for one in of_cut if one.recompute == recompute), None)
    if same is not None or recompute is None or not of_cut:
        return same
    of_mode = {one.recompute[0] if one.recompute else Recompute.NONE: one for one in reversed(of_cut)}
    if not set(recompute) <= of_mode.keys():
        return None
    stages = tuple(of_mode[mode].stages[stage] for stage, mode in enumerate(recompute))
    return of_cut[0].model_copy(update={"stages": stages, "recompute": recompute})


def read_profile(path: Path) -> Profile:
    """Read a profile; raise InputError with path and field."""
    return read_record(path, Profile, "autotune.profile")
