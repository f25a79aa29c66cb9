"""A plan for far more ranks as one HTML file: efficiency over p, the best m, where a step goes, how far to trust it."""

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool

from autotune import __version__
from autotune.plan.scale import ScalePlan, ScalePoint
from autotune.report.page.page import Section, fact_rows, rendered
from autotune.report.page.plots import COLOURS, PARTS, plain, stacked
from autotune.report.scale import (
    COLUMNS,
    ON_PAPER,
    SOURCES,
    cells,
    conclusion,
    headline,
    network_text,
    trust,
    wire_text,
    worst_efficiency,
)
from autotune.report.units import show_bytes


def scale_page(plan: ScalePlan) -> str:
    """Return the whole file; needs no network."""
    facts = {"autotune": __version__, "profile of": f"{plan.profile_ranks} ranks"}
    facts |= plan.environment.model_dump() | plan.workload.model_dump()
    return rendered(headline(plan), conclusion(plan), [ON_PAPER], sections_of(plan), fact_rows(facts))


def sections_of(plan: ScalePlan) -> list[Section]:
    """Return the sections in the order in which a reader asks."""
    by_schedule = schedules(plan)
    return [
        Section(
            "Efficiency",
            "Layers x sequences per second and rank, against the best predicted for the ranks that were profiled. Dark:"
            " the 90 % interval. Light, below it: stragglers and slower links as well.",
            [efficiency(by_schedule)],
            COLUMNS,
            [cells(point) for point in plan.points],
        ),
        Section(
            "The best m",
            "Of all that were simulated and fit in memory; below, the sequences per second of each.",
            [best_counts(by_schedule)],
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
            [where_time_goes(plan.points, len(by_schedule) > 1)],
            ("p", "schedule", *PARTS),
            [
                [str(point.ranks), point.schedule_text, *(f"{100 * part:.1f} %" for part in parts(point).values())]
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
    plot = plain("", x_axis_type="log", x_axis_label="p, ranks", y_axis_label=label, **more)
    plot.xaxis.ticker = sorted({point.ranks for row in points.values() for point in row})
    return plot


def efficiency(points: Mapping[str, Sequence[ScalePoint]]) -> Any:
    """Return efficiency against p, with what may be wrong with it as two bands."""
    plot = over_ranks(points, "efficiency, %")
    for (name, row), colour in zip(points.items(), COLOURS, strict=False):
        best = [100 * point.efficiency for point in row]
        steps = {"low": "high_s", "high": "low_s", "worst": "worst_s"}
        ends = {
            end: [100 * point.efficiency * point.step_time_s / getattr(point, seconds) for point in row]
            for end, seconds in steps.items()
        }
        counts = [point.micro_batches for point in row]
        source = ColumnDataSource({"p": [point.ranks for point in row], "efficiency": best, "m": counts, **ends})
        plot.varea("p", "low", "high", source=source, color=colour, alpha=0.25)
        plot.varea("p", "worst", "low", source=source, color=colour, alpha=0.1)
        line = plot.line("p", "efficiency", source=source, color=colour, line_width=2, legend_label=name)
        plot.scatter("p", "efficiency", source=source, color=colour, size=7, legend_label=name)
        tips = [
            ("schedule", name),
            ("p", "@p"),
            ("m", "@m"),
            ("efficiency", "@efficiency{0.0} % (@low{0.0} to @high{0.0})"),
        ]
        tips.append(("all against it", "@worst{0.0} %"))
        plot.add_tools(HoverTool(renderers=[line], tooltips=tips, mode="vline"))
    plot.y_range.start = 0
    plot.add_layout(plot.legend[0], "right")
    return plot


def best_counts(points: Mapping[str, Sequence[ScalePoint]]) -> Any:
    """Return the best m against p, and the rule of thumb m = 4p."""
    plot = over_ranks(points, "m, micro-batches", y_axis_type="log", height=280)
    for (name, row), colour in zip(points.items(), COLOURS, strict=False):
        ranks, counts = [point.ranks for point in row], [point.micro_batches for point in row]
        source = ColumnDataSource({"p": ranks, "m": counts})
        plot.line("p", "m", source=source, color=colour, line_width=2, legend_label=name)
        dots = plot.scatter("p", "m", source=source, color=colour, size=7, legend_label=name)
        plot.add_tools(HoverTool(renderers=[dots], tooltips=[("schedule", name), ("p", "@p"), ("m", "@m")]))
    ranks = sorted({point.ranks for row in points.values() for point in row})
    plot.line(ranks, [4 * p for p in ranks], color="#999999", line_dash="dashed", legend_label="m = 4p")
    plot.add_layout(plot.legend[0], "right")
    return plot


def parts(point: ScalePoint) -> dict[str, float]:
    """Return the share of each part of the step."""
    return {name: getattr(point.time_split_s, name) / point.step_time_s for name in PARTS}


def where_time_goes(points: Sequence[ScalePoint], is_grouped: bool) -> Any:
    """Return the mean rank's step for every p, by what it goes to; where there are several schedules, side by side."""
    shares = [parts(point) for point in points]
    labels = [f"p={point.ranks}" for point in points]
    columns = {name: [100 * one[name] for one in shares] for name in PARTS}
    groups = [(label, point.schedule_text) for label, point in zip(labels, points, strict=True)]
    return stacked(groups if is_grouped else labels, columns, PARTS, "%")
