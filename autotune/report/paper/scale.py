"""``autotune scale``: a pipeline far larger than the machine that was profiled, and how far to trust its figures.

Everything here is a prediction on paper, and every sentence says where its figures come from.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.config import load_config, split_commas
from autotune.errors import UsageError
from autotune.plan.network import MESSAGES_OUT, Network, Wire, read_network
from autotune.plan.scale import MOST_RANKS, SLOWER, Request, ScalePlan, ScalePoint, batch_for, scale
from autotune.predict.sweep import memory_per_rank
from autotune.records.profile import Profile
from autotune.report.timeline.step import read_source
from autotune.report.units import show_bytes, show_seconds
from autotune.schedule_spec import default_schedule

NARROW = 120  # columns of a terminal
COLUMNS = (
    "p",
    "layers",
    "batch",
    "m",
    "b",
    "schedule",
    "step",
    "sequences/s",
    "efficiency",
    "bubble",
    "messages",
    "interval",
    "stragglers",
    "slower links",
    "peak memory",
)
ON_PAPER = "All of this is predicted on paper; nothing at these sizes was measured."
SOURCES = (
    "Computed: the step and its 90% interval, from the spread of the profile and the model's errors on a few ranks,"
    " which nobody has checked at these sizes; the slowest rank, from how ranks differ in the profile. Described, not"
    " measured: the links."
)
COPIES = (
    "Every stage in the middle is a copy of one that was profiled; the first keeps its embedding, the last its head and"
    " loss. A stage of another depth costs in proportion to its layers, so what a stage costs however few layers it has"
    " is not seen."
)
RUNTIME = "The runtime takes for every action and message what it took where it was profiled."
PLACED = (
    "Ranks lie host by host, in their order. A message passes one NIC at each end and is not split. A pipeline sends"
    f" {MESSAGES_OUT} messages out of a host at once, activations and gradients; all pipelines on it do so at the same"
    " moment and share the NICs. Above the leaves a message has its share of the fabric while all hosts send."
)
DESCRIBED = "The network's figures are described, not measured: from data sheets, or assumed."
NOT_INCLUDED = (
    "Not in any figure: the all-reduce of data-parallel replicas, data loading, checkpoints, other jobs on the network,"
    " and hardware that fails or is throttled, which thousands of devices always have some of."
)


class Flags(NamedTuple):
    """The flags that the user gave; None: not given."""

    stages: str
    network: Path
    layers: int | None = None
    batch: int | None = None
    micro_batches: str | None = None
    schedule: str | None = None
    virtual_stages: str | None = None
    memory_limit: str | None = None


def plan_of(path: Path, flags: Flags, tell: Callable[[int, str], None]) -> ScalePlan:
    """Return what the flags ask for, from a profile or the profile in a report; raise UsageError, InputError."""
    profiles = read_source(path)[1]
    wanted = split_commas(flags.virtual_stages) if flags.virtual_stages else []
    profile = next((one for one in profiles if [str(one.virtual_stages)] == wanted), profiles[0])
    return with_assumptions(scale(profile, request_of(profile, flags), tell))


def request_of(profile: Profile, flags: Flags) -> Request:
    """Return the flags, checked; what was not given follows from the profile."""
    counts = split_commas(flags.stages)
    if not counts or not all(count.isdecimal() and len(count) <= len(str(MOST_RANKS)) for count in counts):
        raise UsageError(f"--stages: write numbers of ranks with commas, such as 64,128 (given: {flags.stages!r})")
    ranks = tuple(sorted(set(map(int, counts))))
    given = flags._asdict()
    names = ("layers", "batch", "micro_batches", "schedule", "virtual_stages", "memory_limit")
    # A config has one batch, which bounds m; here it is that of the longest pipeline.
    known = {"layers": 1, "stages": 1, "batch": max(1, batch_for(profile, ranks[-1]))}
    config = load_config(None, known | {name: given[name] for name in names if given[name] is not None})
    v = config.virtual_stages if flags.virtual_stages else (profile.virtual_stages,)
    if len(v) != 1:
        raise UsageError(f"--virtual-stages: give one (given: {flags.virtual_stages})")
    return Request(
        ranks=ranks,
        network=read_network(flags.network),
        schedules=config.schedule if flags.schedule else (default_schedule(profile.virtual_stages),),
        virtual_stages=v[0] if flags.virtual_stages or v[0] > 1 else config.virtual_stages[0],
        layers=flags.layers,
        batch=flags.batch,
        micro_batches=config.counts() if flags.micro_batches else None,
        memory_limit=config.memory_limit or memory_per_rank(profile),
    )


# --- words --------------------------------------------------------------------------------------------------------


def headline(plan: ScalePlan) -> str:
    """Return what this is."""
    most = max(point.ranks for point in plan.points)
    return f"{plan.profile_ranks} ranks on {plan.environment.device or 'a device'}, on paper as up to {most}"


def largest(plan: ScalePlan) -> ScalePoint:
    """Return the best of the pipelines with the most ranks."""
    most = max(point.ranks for point in plan.points)
    found = [point for point in plan.points if point.ranks == most]
    return max(found, key=lambda point: (point.fits is not False, point.efficiency))


def conclusion(plan: ScalePlan) -> list[str]:
    """Return the largest pipeline in one sentence, what efficiency means, and what layers and batch are."""
    best = largest(plan)
    misfit = " It does not fit in the memory limit." if best.fits is False else ""
    return [
        f"On {best.ranks} ranks a rank is predicted to do {best.efficiency:.0%} of what it does on"
        f" {plan.profile_ranks}, with m = {best.micro_batches} micro-batches of {best.micro_batch_size} under"
        f" {best.schedule_text}; {worst_efficiency(best):.0%} with everything below against it.{misfit}",
        "Efficiency is layers x sequences per second and rank, against the best predicted for the"
        f" {plan.profile_ranks} ranks that were profiled.",
    ]


def worst_efficiency(point: ScalePoint) -> float:
    """Return the efficiency with the slow end of the interval, stragglers and slower links."""
    return point.efficiency * point.step_time_s / point.worst_s


def share(point: ScalePoint, seconds: float | None) -> str:
    """Return ``+1.2 %`` of the predicted step; a dash where it is not known."""
    return "-" if seconds is None else f"+{seconds / point.step_time_s:.1%}"


def trust(plan: ScalePlan, point: ScalePoint) -> str:
    """Return how far to trust one row; ``SOURCES`` says where its figures come from."""
    times = point.ranks / plan.profile_ranks
    texts = [
        f"{times:g} times the ranks that were profiled" if times > 1 else "as many ranks as were profiled",
        f"the step is {show_seconds(point.low_s)} to {show_seconds(point.high_s)}",
        "stragglers are not known"
        if point.stragglers_s is None
        else f"{share(point, point.stragglers_s)} for the slowest rank",
        f"messages are {point.time_split_s.communication / point.step_time_s:.1%} of it",
        f"{share(point, point.slower_links_s)} if those between hosts take {SLOWER:g} times as long",
        f"with all of this against it, {worst_efficiency(point):.0%} efficient",
    ]
    quickest = max(point.evaluated, key=lambda one: one.throughput_seq_s).micro_batches
    if quickest != point.micro_batches:
        texts.append(f"m = {quickest} would be quicker, but does not fit in memory")
    if point.beyond_sizes:
        texts.append(f"micro-batches of {point.micro_batch_size} were not measured, their times are extrapolated")
    if point.not_simulated:
        texts.append(f"too many actions to simulate at m = {', '.join(map(str, point.not_simulated))}")
    if point.fits is None:
        texts.append("whether it fits in memory is not known")
    return f"{'; '.join(texts)}."


def wire_text(wire: Wire) -> str:
    """Return ``10.0 µs and 450 GB/s``."""
    speed = f"{wire.bandwidth_bytes_s / 1e9:g} GB/s" if wire.bandwidth_bytes_s else "no limit of bandwidth"
    return f"{show_seconds(wire.latency_s)} and {speed}"


def network_text(network: Network, inside_measured: bool) -> str:
    """Return the network as it was described."""
    source = "the median of the profile's own links" if inside_measured else "as described"
    width = network.hosts_per_leaf
    several = f", {network.pipelines} pipelines through each" if network.pipelines > 1 else ""
    above = (
        f"{width} hosts to a leaf; above the leaves {wire_text(network.wire('above'))}, oversubscribed"
        f" {network.oversubscription:g} to 1"
        if width
        else "all hosts under one leaf"
    )
    return (
        f"{network.ranks_per_host} rank{'s' if network.ranks_per_host > 1 else ''} to a host{several}. Inside a host"
        f" a message finds {wire_text(network.wire('inside'))} ({source}); between hosts"
        f" {wire_text(network.wire('between'))}, its"
        f" share of {network.rails} NICs of {wire_text(network.between)} each; {above}."
    )


def assumptions(plan: ScalePlan) -> list[str]:
    """Return what the figures rest on, and what is not in them."""
    shared = (
        "The ranks that were profiled shared the cores of their host. Here each has a device of its own, at the pace"
        " that the stages had alone."
    )
    spread = (
        f"Ranks differ in pace by {plan.rank_spread:.2%} (standard deviation: what stages in the middle differ by for a"
        " layer, and the drift while profiling), each by itself."
        if plan.rank_spread
        else "The profile shows no difference in pace between ranks or moments; real ranks differ."
    )
    return [COPIES, *([shared] if plan.ranks_shared_cores else []), RUNTIME, PLACED, DESCRIBED, spread, NOT_INCLUDED]


def with_assumptions(plan: ScalePlan) -> ScalePlan:
    """Return the plan, and sentences on its assumptions."""
    return plan.model_copy(update={"assumptions": tuple(assumptions(plan))})


# --- the terminal -------------------------------------------------------------------------------------------------


def cells(point: ScalePoint) -> list[str]:
    """Return a row of the table."""
    memory = "-" if point.peak_memory_bytes is None else show_bytes(point.peak_memory_bytes)
    return [
        str(point.ranks),
        str(point.layers),
        str(point.batch),
        str(point.micro_batches),
        f"{point.micro_batch_size}{' ?' if point.beyond_sizes else ''}",
        point.schedule_text,
        show_seconds(point.step_time_s),
        f"{point.throughput_seq_s:.1f}",
        f"{point.efficiency:.1%}",
        f"{point.time_split_s.bubble / point.step_time_s:.1%}",
        f"{point.time_split_s.communication / point.step_time_s:.1%}",
        f"±{point.high_s / point.step_time_s - 1:.1%}",
        share(point, point.stragglers_s),
        share(point, point.slower_links_s),
        f"{memory}{' !' if point.fits is False else ''}",
    ]


def print_scale(plan: ScalePlan, console: Console) -> None:
    """Print a row for each number of ranks and schedule, and how far to trust it."""
    limit = f" (limit {show_bytes(plan.memory_limit_bytes)} per rank)" if plan.memory_limit_bytes else ""
    title = f"{headline(plan)}; peak of the fullest rank{limit}"
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        header = name.replace(" ", "\n") if console.width < NARROW else name
        table.add_column(header, justify="left" if name == "schedule" else "right", no_wrap=True)
    for point in plan.points:
        table.add_row(*cells(point))
    console.print(table)
    misfits = (
        ["! does not fit in memory with any m that was run."] if any(one.fits is False for one in plan.points) else []
    )
    if any(point.beyond_sizes for point in plan.points):
        misfits.append("? that micro-batch size was not timed: its figures are extrapolated; profile it.")
    network = f"Network: {network_text(plan.network, plan.inside_measured)}"
    for line in (*conclusion(plan), ON_PAPER, *misfits, network, *trust_lines(plan), SOURCES, NOT_INCLUDED):
        console.print(line, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def trust_lines(plan: ScalePlan) -> list[str]:
    """Return a line for every row beyond the profile's own size."""
    return [
        f"p = {point.ranks}, {point.schedule_text}: {trust(plan, point)}"
        for point in beyond(plan.points, plan.profile_ranks)
    ]


def beyond(points: Sequence[ScalePoint], ranks: int) -> list[ScalePoint]:
    """Return those of more ranks, or all where there are none."""
    return [point for point in points if point.ranks > ranks] or list(points)
