"""A pipeline far larger than the machine that was profiled, on paper: its best m, and how far to trust that.

For each number of ranks the profile is extrapolated, put on a described network, and simulated under a few m: powers of
two times the ranks first, then divisors of the batch on either side of the best. Three things are not known at that
scale, and are said apart from the interval of the prediction itself:

* stragglers: the slowest of many ranks decides. Of n ranks whose paces differ by sigma it is sigma · E(n) slower than
  the mean, E(n) = the expected largest of n normal variables. What the profile's own p ranks show of that is in it.
* links: they are described. The same step where messages between hosts take twice as long.
* everything that is not in the model, in words.
"""

from collections.abc import Callable, Sequence
from math import hypot, sqrt
from statistics import NormalDist, mean, stdev
from typing import Literal, NamedTuple

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autotune.config import divisors
from autotune.errors import UsageError
from autotune.plan.extrapolate import extrapolate
from autotune.plan.network import Network, connected, crossings, settled
from autotune.predict.extrapolation import basis_of, doubt
from autotune.predict.predict import candidates_for, illegal_reason, predict, relative_spread, simulate_step
from autotune.predict.simulator.wavefront import COLUMNS
from autotune.predict.uncertainty import interval, total_sigma
from autotune.records.base import SCHEMA_VERSION, Record
from autotune.records.job.environment import Environment
from autotune.records.job.workload import WorkloadFacts
from autotune.records.prediction import Basis, Candidate, Prediction, TimeSplit, schedule_text
from autotune.records.profile import Profile
from autotune.schedule_spec import SCHEDULES, ScheduleName

MOST_RANKS = 4096
MOST_SIMULATED = 2**24
"""Actions of a step that is run action by action: 1024 ranks of two stages with m = 4p, a few seconds and 2 GB."""
MOST_IN_COLUMNS = 2**28
"""Of one under GPipe or 1F1B, which takes a thirtieth of that: 4096 ranks with m = 8p."""
SLOWER = 2.0
"""The factor by which messages between hosts take longer where the links are doubted."""
PER_RANK = 4
"""Sequences per rank where neither the flags nor the profile say a batch."""


class Request(NamedTuple):
    """A request for plans. ``layers``, ``batch``, ``micro_batches``: the same at every number of ranks; None: as many
    layers and sequences per rank as the profile has, and a choice of m."""

    ranks: tuple[int, ...]
    network: Network
    schedules: tuple[ScheduleName, ...] = ("1F1B",)
    virtual_stages: int = 1
    layers: int | None = None
    batch: int | None = None
    micro_batches: tuple[int, ...] | None = None
    memory_limit: int | None = None


class Evaluated(Record):
    """One m that was simulated."""

    micro_batches: PositiveInt
    """Micro-batches per step (m)."""
    schedule: ScheduleName
    """Schedule, by torch's name."""
    throughput_seq_s: PositiveFloat
    """Throughput, sequences per second."""


class ScalePoint(Record):
    """The best m of some number of ranks under one schedule, all on paper; seconds are of one step."""

    ranks: PositiveInt
    """Ranks (p)."""
    layers: PositiveInt
    """Layers of the model."""
    batch: PositiveInt
    """Sequences per step (B)."""
    schedule: ScheduleName
    """Schedule, by torch's name."""
    virtual_stages: PositiveInt
    """Stages per rank (v)."""
    micro_batches: PositiveInt
    """Micro-batches per step (m)."""
    micro_batch_size: PositiveInt
    """Sequences per micro-batch (b)."""
    step_time_s: PositiveFloat
    """Predicted seconds of a step."""
    low_s: PositiveFloat
    """Lower end of the 90 % interval that follows from the profile, seconds."""
    high_s: PositiveFloat
    """Upper end of that interval, seconds."""
    stragglers_s: NonNegativeFloat | None
    """Seconds more because of the slowest rank; null where the profile shows no difference between ranks or moments."""
    slower_links_s: NonNegativeFloat
    """Seconds more where messages between hosts take twice as long."""
    throughput_seq_s: PositiveFloat
    """Throughput, sequences per second."""
    throughput_tokens_s: PositiveFloat | None
    """Throughput, tokens per second; null where the tokens per sequence are not known."""
    efficiency: PositiveFloat
    """Layers x sequences per second and rank, against the best at the profile's own number of ranks."""
    bubble_fraction: NonNegativeFloat
    """Share of p x step time in which devices are idle."""
    time_split_s: TimeSplit
    """The parts of the step's time."""
    peak_memory_bytes: NonNegativeInt | None
    """Bytes of the fullest rank; null where the profile does not tell."""
    fits: bool | None
    """True where that is within the memory limit; null where either is not known."""
    inside: NonNegativeInt
    """Stage boundaries within a host."""
    between: NonNegativeInt
    """Stage boundaries between hosts under one leaf."""
    above: NonNegativeInt
    """Stage boundaries between leaves."""
    evaluated: tuple[Evaluated, ...]
    """Every m that was predicted."""
    not_simulated: tuple[PositiveInt, ...] = ()
    """The m that would have had too many actions."""
    beyond_sizes: bool = False
    """True where the micro-batch size lies outside of what was measured."""

    @property
    def schedule_text(self) -> str:
        """The schedule, with its stages per rank."""
        return schedule_text(self.schedule, self.virtual_stages)

    @property
    def worst_s(self) -> float:
        """The step with all against it: the slow end of the interval, stragglers, slower links."""
        return self.high_s + (self.stragglers_s or 0.0) + self.slower_links_s


class ScalePlan(Record):
    """Every number of ranks, the profile's own first."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    """Form of the document."""
    kind: Literal["autotune.scale"] = "autotune.scale"
    """Which document it is."""
    profile_ranks: PositiveInt
    """Ranks of the profile."""
    environment: Environment
    """Machine and software of the profile."""
    workload: WorkloadFacts
    """The training job of the profile."""
    network: Network
    """The described network."""
    inside_measured: bool
    """True where ``network`` has the profile's own links for the inside of hosts."""
    ranks_shared_cores: bool
    """True where ranks of the profile shared cores."""
    rank_spread: NonNegativeFloat
    """Relative standard deviation of how fast ranks are."""
    memory_limit_bytes: PositiveInt | None
    """Bytes that each rank may hold; null is without limit."""
    points: tuple[ScalePoint, ...]
    """The predictions."""
    assumptions: tuple[str, ...] = ()
    """Sentences on what the figures rest on."""


def scale(profile: Profile, request: Request, tell: Callable[[int, str], None] = lambda ranks, name: None) -> ScalePlan:
    """Predict every number of ranks under every schedule. ``tell``: called before each.

    Raises UsageError for what cannot be asked, InputError for a profile that does not hold what is needed.
    """
    check(profile, request)
    inside_measured = request.network.inside is None
    request = request._replace(network=settled(request.network, profile))
    points = []
    for ranks in dict.fromkeys((profile.ranks, *request.ranks)):
        for name in request.schedules:
            tell(ranks, name)
            points.append(scale_point(profile, request, ranks, name))
    best = max(point.efficiency for point in points if point.ranks == profile.ranks)
    return ScalePlan(
        profile_ranks=profile.ranks,
        environment=profile.environment,
        workload=profile.workload,
        network=request.network,
        inside_measured=inside_measured,
        ranks_shared_cores=profile.shared is not None,
        rank_spread=rank_spread(profile),
        memory_limit_bytes=request.memory_limit,
        points=tuple(point.model_copy(update={"efficiency": point.efficiency / best}) for point in points),
    )


def check(profile: Profile, request: Request) -> None:
    """Raise UsageError for numbers of ranks that cannot be made from the profile, or not within minutes."""
    for ranks in request.ranks:
        if not profile.ranks <= ranks <= MOST_RANKS:
            raise UsageError(
                f"--stages: {ranks} ranks cannot be made from a profile of {profile.ranks}; give {profile.ranks} to"
                f" {MOST_RANKS}"
            )


def scale_point(profile: Profile, request: Request, ranks: int, name: ScheduleName) -> ScalePoint:
    """Return the best m that fits; where none does, the quickest. Its efficiency is not yet relative to anything."""
    v = 1 if SCHEDULES[name].has_one_stage else request.virtual_stages
    paper = connected(extrapolate(profile, ranks, v, request.layers), request.network)
    layers = sum(stage.layers or 0 for stage in paper.stages)
    batch = request.batch or batch_for(profile, ranks)
    known, left_out = evaluate(paper, request, name, layers, batch)
    best, prediction = quickest_that_fits(paper, known, request.memory_limit)
    step = prediction.step_time_s
    doubted = simulate_step(connected(paper, request.network.slower(SLOWER)), best).seconds
    spread = relative_spread(profile, best.micro_batch_size)  # the copies of a stage share its error
    doubted_sizes = doubt(profile, best.micro_batch_size)
    model = max(0.0, total_sigma(prediction.uncertainty) ** 2 - doubted_sizes.sigma**2) ** 0.5
    low, high = interval(step, hypot(model, spread))
    low, high = low * doubted_sizes.low, high * doubted_sizes.high
    passed = crossings(request.network, ranks, v)
    return ScalePoint(
        ranks=ranks,
        layers=layers,
        batch=batch,
        **best.model_dump(include={"micro_batches", "micro_batch_size", "schedule", "virtual_stages"}),
        step_time_s=step,
        low_s=low,
        high_s=high,
        stragglers_s=straggler_seconds(profile, ranks, prediction.time_split_s),
        slower_links_s=max(0.0, doubted - step),
        throughput_seq_s=prediction.throughput_seq_s,
        throughput_tokens_s=prediction.throughput_tokens_s,
        efficiency=layers * prediction.throughput_seq_s / ranks,
        bubble_fraction=prediction.bubble_fraction,
        time_split_s=prediction.time_split_s,
        peak_memory_bytes=max(prediction.device_memory_bytes) if prediction.device_memory_bytes else None,
        fits=prediction.fits,
        inside=passed["inside"],
        between=passed["between"],
        above=passed["above"],
        evaluated=tuple(
            Evaluated(micro_batches=one.micro_batches, schedule=one.schedule, throughput_seq_s=one.sequences / seconds)
            for one, seconds in sorted(known.items(), key=lambda pair: pair[0].micro_batches)
        ),
        not_simulated=left_out,
        beyond_sizes=basis_of(profile, best.micro_batch_size) is Basis.EXTRAPOLATED,
    )


def batch_for(profile: Profile, ranks: int) -> int:
    """Return as many sequences per rank as the profile has: at a fixed batch most of a long pipeline would be
    bubble."""
    own = profile.workload.batch
    return own * ranks // profile.ranks if own else PER_RANK * ranks


def evaluate(
    paper: Profile, request: Request, name: ScheduleName, layers: int, batch: int
) -> tuple[dict[Candidate, float], tuple[int, ...]]:
    """Return seconds of a step of every candidate that was run, and the m that would have had too many actions."""
    ranks, v, free = (
        paper.ranks,
        paper.virtual_stages,
        request.micro_batches is None or paper.ranks not in request.ranks,
    )
    wanted = first_counts(ranks, batch) if free else [m for m in request.micro_batches or () if m <= batch]
    counts = [m for m in wanted if is_simulated(name, ranks, v, m)]
    if not counts:
        raise UsageError(
            f"--micro-batches: none can be simulated with {ranks} ranks, {name} and a batch of {batch}; give some of"
            f" at most {batch}, and {actions_limit(name) // (2 * v * ranks)}"
        )
    known: dict[Candidate, float] = {}

    def run(more: Sequence[int]) -> None:
        found, _ = candidates_for(more, (name,), (v,), ranks, layers, batch, replicas=paper.workload.replicas)
        known.update({one: simulate_step(paper, one).seconds for one in found if one not in known})

    run(counts)
    best = min(known, key=lambda one: known[one] / one.sequences).micro_batches
    near = [m for m in nearby(best, batch) if is_simulated(name, ranks, v, m)]
    if free and (near := [m for m in near if illegal_reason(name, ranks, v, m, layers) is None]):
        run(near)
    return known, tuple(m for m in wanted if m not in counts)


def first_counts(ranks: int, batch: int) -> list[int]:
    """Return p/4, p/2, p, 2p, 4p ... up to the batch, and the batch."""
    doubled = [ranks * 2**power // 4 for power in range(32)]
    return sorted({batch, *(m for m in doubled if 1 <= m <= batch)})


def nearby(best: int, batch: int) -> list[int]:
    """Return the divisors of the batch nearest to best / sqrt(2) and best · sqrt(2), between half and twice the
    best."""
    between = [m for m in divisors(batch) if best < 2 * m < 4 * best and m != best]
    sides = ([m for m in between if m < best], [m for m in between if m > best])
    return [
        min(side, key=lambda m: abs(m / best - share))
        for side, share in zip(sides, (sqrt(0.5), sqrt(2)), strict=True)
        if side
    ]


def actions_limit(name: str) -> int:
    """Return how many forwards and backwards a step may have."""
    return MOST_IN_COLUMNS if name in COLUMNS else MOST_SIMULATED


def is_simulated(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> bool:
    """Return whether its step is simulated at all."""
    return 2 * virtual_stages * ranks * micro_batches <= actions_limit(name)


def quickest_that_fits(
    paper: Profile, known: dict[Candidate, float], limit: int | None
) -> tuple[Candidate, Prediction]:
    """Return the best of those that were run, of a micro-batch size that was timed where there is one; where none fits,
    the quickest all the same."""
    ordered = sorted(
        known,
        key=lambda one: (
            basis_of(paper, one.micro_batch_size) is Basis.EXTRAPOLATED,
            known[one] / one.sequences,
        ),
    )
    first = None
    for candidate in ordered:
        prediction = predict(paper, candidate, limit)
        if prediction.fits is not False:
            return candidate, prediction
        first = first or (candidate, prediction)
    assert first is not None, "something was run"
    return first


def expected_largest(count: int) -> float:
    """Return the mean of the largest of ``count`` standard normal variables: Blom's approximation, within 0.03 from
    three on."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def rank_spread(profile: Profile) -> float:
    """Return relative standard deviation of the pace of ranks: what stages in the middle differ by per layer, at all
    sizes together, and the drift between moments of profiling. 0 where the profile shows neither."""
    middle = profile.stages[1:-1]
    relative = []
    for row in middle[0].time_s:
        whole = [stage.seconds(row.micro_batch_size, lambda one: one.t_f + one.backward) for stage in middle]
        paces = [seconds / (stage.layers or 1) for seconds, stage in zip(whole, middle, strict=True)]
        if any(paces):
            relative.append([pace / mean(paces) for pace in paces])
    of_stage = [mean(column) for column in zip(*relative, strict=True)]
    return hypot(stdev(of_stage) if len(of_stage) > 1 else 0.0, profile.drift)


def straggler_seconds(profile: Profile, ranks: int, split: TimeSplit) -> float | None:
    """Return how much longer a step is expected to be because the slowest of ``ranks`` is slower than the slowest of
    those measured: every micro-batch waits for it."""
    sigma = rank_spread(profile)
    busy = split.compute + split.padding + split.granularity
    return sigma * (expected_largest(ranks) - expected_largest(profile.ranks)) * busy if sigma else None
