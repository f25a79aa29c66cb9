"""A plan for far more ranks as one HTML file: efficiency over p, the best m, where a step goes, how far to trust it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d

from autotune import __version__
from autotune.plan.scale import ScalePlan, ScalePoint
from autotune.report.page.chart import MARKERS, Chart, Key, Sign, inked, mark, plain
from autotune.report.page.colours import INK, INK_HEX, OTHERS, PARTS, PICK, parts_of
from autotune.report.page.page import Page, fact_rows, rendered
from autotune.report.page.plots import cycle
from autotune.report.page.sections import Section
from autotune.report.page.stacks import ABOVE, stacked
from autotune.report.page.tiles import PEAK, Tile
from autotune.report.paper.scale import (
    COLUMNS,
    ON_PAPER,
    SOURCES,
    cells,
    conclusion,
    headline,
    largest,
    network_text,
    trust,
    wire_text,
    worst_efficiency,
)
from autotune.report.units import counted, show_bytes, show_rough, show_share

PICKED = Key("the best of the most ranks", PICK, Sign.STAR)


@dataclass(frozen=True)
class Curve:
    """The points of one schedule, and how they are drawn."""

    name: str
    points: Sequence[ScalePoint]
    marker: str
    colour: str

    @property
    def key(self) -> Key:
        """What the legend says of it."""
        return Key(self.name, self.colour, MARKERS[self.marker])


def scale_page(plan: ScalePlan) -> str:
    """Return the whole file; needs no network."""
    facts = {"autotune": __version__, "profile of": f"{plan.profile_ranks} ranks"}
    facts |= plan.environment.model_dump() | asdict(plan.workload)
    answer, *notes = conclusion(plan)
    table = Section("Pipelines", "", headers=COLUMNS, rows=[cells(point) for point in plan.points])
    table.marked = plan.points.index(largest(plan))
    return rendered(
        Page(
            title=headline(plan),
            tiles=tiles(plan),
            answer=answer,
            cautions=[ON_PAPER],
            table=table,
            notes=notes,
            sections=sections_of(plan),
            facts=fact_rows(facts),
        )
    )


def tiles(plan: ScalePlan) -> list[Tile]:
    """Return what the largest pipeline comes to."""
    point = largest(plan)
    size = f"of {counted(point.micro_batch_size, 'sequence')} each, {point.schedule_text}"
    worst = worst_efficiency(point)
    tokens = point.throughput_tokens_s
    rate = f"{show_rough(point.throughput_seq_s)} sequences/s"
    found = [
        Tile(f"micro-batches on {point.ranks} ranks", f"m = {point.micro_batches}", size),
        Tile("tokens/s", f"{float(show_rough(tokens)):,.0f}", rate)
        if tokens
        else Tile("sequences/s", show_rough(point.throughput_seq_s)),
        Tile("efficiency", show_share(point.efficiency, 0), f"{show_share(worst, 0)} with all against it", worst),
        Tile("bubble", show_share(point.time_split_s.bubble / point.step_time_s, 0), "idle because of the schedule"),
    ]
    if point.peak_memory_bytes is not None:
        limit = plan.memory_limit_bytes
        share = point.peak_memory_bytes / limit if limit else None
        note = (
            f"{show_share(share)} of {show_bytes(limit)}{', too much' if share > 1 else ''}"
            if limit and share is not None
            else "no limit is known"
        )
        bar = min(1.0, share) if share is not None else None
        found.append(Tile(PEAK, show_bytes(point.peak_memory_bytes), note, bar))
    return found


def sections_of(plan: ScalePlan) -> list[Section]:
    """Return the sections in the order in which a reader asks."""
    shown = parts_of(point.time_split_s for point in plan.points)
    by_schedule = schedules(plan)
    return [
        Section(
            "Efficiency",
            "Layers x sequences per second and rank, against the best predicted for the ranks that were profiled. Dark:"
            " the 90% interval. Light, below it: stragglers and slower links as well.",
            [efficiency(plan, by_schedule)],
        ),
        Section(
            "The best m",
            "Of all that were simulated and fit in memory; below, the sequences per second of each.",
            [best_counts(plan, by_schedule)],
            ("p", "schedule", "m", "sequences/s"),
            [
                (str(point.ranks), one.schedule, str(one.micro_batches), f"{one.throughput_seq_s:.1f}")
                for point in plan.points
                for one in point.evaluated
            ],
        ),
        Section(
            "Where the time goes",
            "What share of the step the mean rank spends on what, as predicted.",
            [where_time_goes(plan, len(by_schedule) > 1)],
            ("p", "schedule", *shown),
            [
                [str(point.ranks), point.schedule_text, *(f"{parts(point)[name]:.1%}" for name in shown)]
                for point in plan.points
            ],
        ),
        trust_section(plan),
        Section(
            "What is assumed",
            "What the model takes for granted, and what it leaves out.",
            headers=("assumption",),
            rows=[[one] for one in plan.assumptions],
        ),
        Section(
            "The network",
            network_text(plan.network, plan.inside_measured),
            headers=("p", "schedule", "inside a host", "between hosts", "above the leaves"),
            rows=network_rows(plan),
        ),
    ]


def trust_section(plan: ScalePlan) -> Section:
    """Return every row again, with what is against it."""
    limit = f" The memory limit is {show_bytes(plan.memory_limit_bytes)} per rank." if plan.memory_limit_bytes else ""
    rows = [
        (
            str(point.ranks),
            point.schedule_text,
            f"{point.efficiency:.1%}",
            f"{worst_efficiency(point):.1%}",
            trust(plan, point),
        )
        for point in plan.points
    ]
    headers = ("p", "schedule", "efficiency", "with all against it", "why")
    return Section("How far to trust this", f"{SOURCES}{limit}", headers=headers, rows=rows)


def network_rows(plan: ScalePlan) -> list[list[str]]:
    """Return how many boundaries pass what, and what a message finds there."""
    wires = [wire_text(plan.network.wire(crossing)) for crossing in ("inside", "between", "above")]
    counted = [
        [str(point.ranks), point.schedule_text, *map(str, (point.inside, point.between, point.above))]
        for point in plan.points
    ]
    return [["", "latency and bandwidth", *wires], *counted]


def schedules(plan: ScalePlan) -> Mapping[str, list[ScalePoint]]:
    """Return the points of each schedule that was asked for, by ascending p. GPipe stands in for 1F1B where m < p."""
    found: dict[str, list[ScalePoint]] = {}
    for point in plan.points:
        found.setdefault(point.schedule_text, []).append(point)
    return found


def over_ranks(points: Mapping[str, Sequence[ScalePoint]], label: str, **more: Any) -> Any:
    """Return an empty figure over the number of ranks, on a scale of powers."""
    plot = plain(x_axis_type="log", x_axis_label="p, ranks", y_axis_label=label, **more)
    plot.xaxis.ticker = sorted({point.ranks for row in points.values() for point in row})
    return plot


def styled(plan: ScalePlan, points: Mapping[str, Sequence[ScalePoint]]) -> list[Curve]:
    """Return the curve of each schedule: that of the marked pipeline in the colour of the text, the others paler."""
    best = largest(plan).schedule_text
    return [
        Curve(name, row, marker, INK if name == best else OTHERS)
        for (name, row), marker in zip(points.items(), cycle(len(points)), strict=True)
    ]


def add_curve(plot: Any, curve: Curve, value: str, source: ColumnDataSource) -> Any:
    """Add a line with points; return the points."""
    colour = INK_HEX if curve.colour == INK else curve.colour
    drawn = [
        plot.line("p", value, source=source, color=colour, line_width=2),
        plot.scatter("p", value, source=source, color=colour, size=8, marker=curve.marker),
    ]
    if curve.colour == INK:
        for one in drawn:
            inked(one)
    return drawn[1]


def efficiency(plan: ScalePlan, points: Mapping[str, Sequence[ScalePoint]]) -> Chart:
    """Return efficiency against p, with what may be wrong with it as two bands."""
    plot = over_ranks(points, "efficiency, %")
    keys = [PICKED]
    highest = 0.0
    for curve in styled(plan, points):
        steps = {"low": "high_s", "high": "low_s", "worst": "worst_s"}
        ends = {
            end: [100 * point.efficiency * point.step_time_s / getattr(point, seconds) for point in curve.points]
            for end, seconds in steps.items()
        }
        data = {
            "p": [point.ranks for point in curve.points],
            "efficiency": [100 * point.efficiency for point in curve.points],
            "m": [point.micro_batches for point in curve.points],
            **ends,
        }
        highest = max(highest, *ends["high"])
        source = ColumnDataSource(data)
        colour = INK_HEX if curve.colour == INK else curve.colour
        bands = [plot.varea("p", "low", "high", source=source, color=colour, alpha=0.25)]
        bands.append(plot.varea("p", "worst", "low", source=source, color=colour, alpha=0.1))
        if curve.colour == INK:
            for band in bands:
                inked(band)
        dots = add_curve(plot, curve, "efficiency", source)
        tips = [("schedule", curve.name), ("p", "@p"), ("m", "@m")]
        tips.append(("efficiency", "@efficiency{0.0}% (@low{0.0} to @high{0.0})"))
        plot.add_tools(HoverTool(renderers=[dots], tooltips=[*tips, ("all against it", "@worst{0.0}%")]))
        keys.append(curve.key)
    plot.y_range = Range1d(start=0, end=1.05 * highest)
    mark(plot, largest(plan).ranks, 100 * largest(plan).efficiency)
    return Chart(plot, keys)


def best_counts(plan: ScalePlan, points: Mapping[str, Sequence[ScalePoint]]) -> Chart:
    """Return the best m against p, and the rule of thumb m = 4p."""
    plot = over_ranks(points, "m, micro-batches", y_axis_type="log", height=260)
    ranks = sorted({point.ranks for row in points.values() for point in row})
    plot.line(ranks, [4 * p for p in ranks], color=OTHERS, line_dash="dashed")
    keys = [PICKED]
    for curve in styled(plan, points):
        data = {
            "p": [point.ranks for point in curve.points],
            "m": [point.micro_batches for point in curve.points],
        }
        dots = add_curve(plot, curve, "m", ColumnDataSource(data))
        plot.add_tools(HoverTool(renderers=[dots], tooltips=[("schedule", curve.name), ("p", "@p"), ("m", "@m")]))
        keys.append(curve.key)
    mark(plot, largest(plan).ranks, largest(plan).micro_batches)
    return Chart(plot, [*keys, Key("m = 4p", OTHERS, Sign.DASHED)])


def parts(point: ScalePoint) -> dict[str, float]:
    """Return the share of each part of the step."""
    return {name: getattr(point.time_split_s, name) / point.step_time_s for name in PARTS}


def where_time_goes(plan: ScalePlan, is_grouped: bool) -> Chart:
    """Return the mean rank's step for every p, by what it goes to; where there are several schedules, side by side."""
    points = plan.points
    shares = [parts(point) for point in points]
    labels = [f"p={point.ranks}" for point in points]
    columns = {name: [100 * one[name] for one in shares] for name in PARTS}
    groups = [(label, point.schedule_text) for label, point in zip(labels, points, strict=True)]
    chart = stacked(groups if is_grouped else labels, columns, PARTS, "%")
    at = points.index(largest(plan))
    mark(chart.figure, groups[at] if is_grouped else labels[at], 100 * (1 + ABOVE))
    return Chart(chart.figure, [PICKED, *chart.keys])
