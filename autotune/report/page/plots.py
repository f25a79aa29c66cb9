"""The plots of the page, drawn by Bokeh: each a figure, from the report's own numbers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Range1d
from bokeh.plotting import figure

from autotune.records.prediction import Basis, Family, MemorySplit, TimeSplit
from autotune.records.report import CandidateReport, Report
from autotune.report.timeline.step import Step
from autotune.report.timeline.timeline import MEANING

# Okabe and Ito's colours, which people who see red and green alike can tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
PARTS = dict(zip(TimeSplit.model_fields, (*COLOURS, "#555555"), strict=True))
MEMORY_PARTS = dict(zip([name for name in MemorySplit.model_fields if name != "moment"], COLOURS, strict=False))
ACTIONS = {"F": COLOURS[0], "B": COLOURS[1], "I": COLOURS[5], "W": COLOURS[2]}
WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "toolbar_location": "above", "active_scroll": None}


def plain(title: str, height: int = 340, **more: Any) -> Any:
    """Return an empty figure as wide as the page."""
    tools = more.pop("tools", "pan,box_zoom,reset,save")
    return figure(title=title, height=height, tools=tools, **WIDE, **more)


def schedules(rows: Iterable[CandidateReport]) -> dict[str, list[CandidateReport]]:
    """Return the candidates of each schedule and number of stages per rank, by ascending m."""
    found: dict[Family, list[CandidateReport]] = {}
    for row in sorted(rows, key=lambda one: one.micro_batches):
        found.setdefault(row.family, []).append(row)
    return {alike[0].schedule_text: alike for alike in found.values()}


def throughput(report: Report) -> Any:
    """Return sequences per second against m: the predicted band, and the estimates of what ran with their interval."""
    plot = plain("", x_axis_type="log", x_axis_label="m, micro-batches", y_axis_label="sequences per second")
    plot.xaxis.ticker = sorted({row.micro_batches for row in report.candidates})
    for (name, rows), colour in zip(schedules(report.candidates).items(), COLOURS, strict=False):
        sequences = [row.sequences for row in rows]
        shown = [row.last_prediction or row.prediction for row in rows]
        band = {
            "m": [row.micro_batches for row in rows],
            "predicted": [one.throughput_seq_s for one in shown],
            "low": [n / one.step_time_high_s for n, one in zip(sequences, shown, strict=True)],
            "high": [n / one.step_time_low_s for n, one in zip(sequences, shown, strict=True)],
        }
        source = ColumnDataSource(band)
        plot.varea("m", "low", "high", source=source, color=colour, alpha=0.15)
        line = plot.line("m", "predicted", source=source, color=colour, line_width=2, legend_label=f"{name}, predicted")
        tips = [("m", "@m"), ("predicted", "@predicted{0.0} (@low{0.0} to @high{0.0})")]
        plot.add_tools(HoverTool(renderers=[line], tooltips=[("schedule", name), *tips], mode="vline"))
        add_measured(plot, name, rows, colour)
        add_extrapolated(plot, name, rows, colour)
    plot.add_layout(plot.legend[0], "right")
    return plot


def add_measured(plot: Any, name: str, rows: Sequence[CandidateReport], colour: str) -> None:
    """Add points where candidates ran, with whiskers over the interval of the estimate, or else the range of
    the steps."""
    ran = [(row, row.measurement) for row in rows if row.measurement]
    if not ran:
        return
    data = {
        "m": [row.micro_batches for row, _ in ran],
        "rate": [row.rate for row, _ in ran],
        "low": [row.sequences / longest_step(row) for row, _ in ran],
        "high": [row.sequences / shortest_step(row) for row, _ in ran],
        "raw": [one.throughput_seq_s for _, one in ran],
        "steps": [len(one.step_times_s) for _, one in ran],
    }
    source = ColumnDataSource(data)
    plot.segment("m", "low", "m", "high", source=source, color=colour, line_width=2)
    points = plot.scatter(
        "m", "rate", source=source, color=colour, size=9, line_color="black", legend_label=f"{name}, ran"
    )
    tips = [("schedule", name), ("m", "@m"), ("estimate", "@rate{0.0} (@low{0.0} to @high{0.0})")]
    tips.append(("raw", "median @raw{0.0} of @steps steps"))
    plot.add_tools(HoverTool(renderers=[points], tooltips=tips))


def add_extrapolated(plot: Any, name: str, rows: Sequence[CandidateReport], colour: str) -> None:
    """Add hollow points where a prediction rests on times of other micro-batch sizes alone."""
    found = [row for row in rows if row.prediction.basis is Basis.EXTRAPOLATED and row.measurement is None]
    if not found:
        return
    source = ColumnDataSource(
        {"m": [row.micro_batches for row in found], "rate": [row.prediction.throughput_seq_s for row in found]}
    )
    label = f"{name}, extrapolated"
    plot.scatter("m", "rate", source=source, size=9, line_color=colour, fill_color=None, legend_label=label)


def longest_step(row: CandidateReport) -> float:
    """Return the upper end of the whisker of a candidate that ran, in seconds."""
    if row.estimate is not None:
        return row.estimate.step_time_high_s
    return max(row.measurement.step_times_s) if row.measurement else row.prediction.step_time_high_s


def shortest_step(row: CandidateReport) -> float:
    """Return the lower end of the whisker of a candidate that ran, in seconds."""
    if row.estimate is not None:
        return row.estimate.step_time_low_s
    return min(row.measurement.step_times_s) if row.measurement else row.prediction.step_time_low_s


Labels = list[str] | list[tuple[str, str]]
"""The labels of bars; in pairs: of the group that a bar stands in, and its own."""


def stacked(labels: Labels, parts: dict[str, list[float]], colours: dict[str, str], unit: str) -> Any:
    """Return bars of parts, one for each label."""
    plot = plain("", x_range=FactorRange(*labels), y_axis_label=unit)
    source = ColumnDataSource({"label": labels, **parts})
    known = [name for name in parts if any(parts[name])]
    bars = plot.vbar_stack(
        known, x="label", width=0.8, source=source, color=[colours[name] for name in known], legend_label=known
    )
    for name, bar in zip(known, bars, strict=True):
        tips = [("", "@label"), (name, f"@{name}{{0.000}} {unit}")]
        plot.add_tools(HoverTool(renderers=[bar], tooltips=tips))
    plot.y_range.start = 0
    # On a telephone the labels of fourteen bars just fit; where there are too many, the bar under the pointer is named.
    plot.xaxis.major_label_text_font_size = "9px" if len(labels) <= MOST_LABELS else "0px"
    if labels and isinstance(labels[0], tuple):
        plot.xaxis.group_text_font_size = "9px"
    plot.add_layout(plot.legend[0], "right")
    return plot


MOST_LABELS = 40
LIMIT_IN_SIGHT = 3  # times the highest peak


def is_limit_in_sight(report: Report, rows: Sequence[CandidateReport]) -> bool:
    """Return whether the memory limit can be drawn without making the bars tiny."""
    peaks = [one.total for row in rows for one in row.prediction.memory_split_bytes or ()]
    return (
        bool(peaks)
        and report.memory_limit_bytes is not None
        and report.memory_limit_bytes < LIMIT_IN_SIGHT * max(peaks)
    )


def memory(report: Report, rows: Sequence[CandidateReport]) -> Any | None:
    """Return peak memory of each rank for every m, by its parts, with the limit; None where it is not known."""
    known = [(row, row.prediction.memory_split_bytes) for row in rows if row.prediction.memory_split_bytes]
    if not known:
        return None
    labels = [(f"m={row.micro_batches}", f"r{rank}") for row, split in known for rank in range(len(split or ()))]
    flat = [one for _, split in known for one in split or ()]
    parts = {name: [getattr(one, name) / 2**30 for one in flat] for name in MEMORY_PARTS}
    plot = stacked(labels, parts, MEMORY_PARTS, "GiB")
    if report.memory_limit_bytes and is_limit_in_sight(report, rows):
        limit, most = report.memory_limit_bytes / 2**30, max(one.total for one in flat) / 2**30
        plot.hspan(y=[limit], line_color="#d55e00", line_dash="dashed", line_width=2)
        plot.y_range.end = 1.1 * max(limit, most)
    return plot


def where_time_goes(rows: Sequence[CandidateReport]) -> Any:
    """Return the mean rank's step for every m, by what it goes to."""
    labels = [f"m={row.micro_batches}" for row in rows]
    parts = {name: [getattr(row.prediction.time_split_s, name) for row in rows] for name in PARTS}
    return stacked(labels, parts, PARTS, "s")


def history(rows: Sequence[CandidateReport]) -> Any:
    """Return the estimated throughput of what ran, in the order in which it first ran, and the best up to then."""
    rates = [row.rate for row in rows]
    plot = plain("", height=260, x_axis_label="candidates, as they ran", y_axis_label="sequences per second")
    data = {
        "number": list(range(1, len(rates) + 1)),
        "rate": rates,
        "best": [max(rates[: number + 1]) for number in range(len(rates))],
        "name": [row.name for row in rows],
    }
    source = ColumnDataSource(data)
    plot.step(
        "number", "best", source=source, mode="after", color=COLOURS[5], line_width=2, legend_label="best by then"
    )
    dots = plot.scatter("number", "rate", source=source, size=9, color=COLOURS[0], legend_label="estimate")
    plot.add_tools(HoverTool(renderers=[dots], tooltips=[("", "@name"), ("sequences/s", "@rate{0.0}")]))
    plot.xaxis.ticker = data["number"]
    plot.add_layout(plot.legend[0], "right")
    return plot


def pareto(report: Report) -> Any | None:
    """Return throughput against peak memory, and those that no other beats in both; None where memory is not known."""
    rows = [(row.peak / 2**30, row.rate, row.name, bool(row.measurement)) for row in report.candidates if row.peak]
    if not rows:
        return None
    plot = plain("", x_axis_label="peak memory of the fullest rank, GiB", y_axis_label="sequences per second")
    for is_measured, label, fill in ((True, "ran", COLOURS[0]), (False, "predicted", None)):
        found = [row for row in rows if row[3] == is_measured]
        if found:
            memory_gib, rates, names, _ = zip(*found, strict=True)
            source = ColumnDataSource({"memory": memory_gib, "rate": rates, "name": names})
            dots = plot.scatter(
                "memory", "rate", source=source, size=9, color=COLOURS[0], fill_color=fill, legend_label=label
            )
            tips = [("", "@name"), ("sequences/s", "@rate{0.0}"), ("GiB", "@memory{0.000}")]
            plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    front = [(point.peak_memory_bytes / 2**30, point.throughput_seq_s) for point in report.search.pareto_front]
    if len(front) > 1:
        xs, ys = zip(*sorted(front), strict=True)
        plot.step(xs, ys, mode="after", color=COLOURS[5], line_width=2, legend_label="Pareto front")
    plot.add_layout(plot.legend[0], "right")
    return plot


def timeline(step: Step, end_s: float) -> Any:
    """Return ranks as rows, actions as bars of their length; zooms along time; the action under the pointer is
    named."""
    ranks = step.schedule.ranks
    plot = plain(
        f"m = {step.schedule.micro_batches}, {step.name}, {step.source}",
        height=90 + 26 * ranks,
        tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
        x_axis_label="seconds",
        x_range=Range1d(start=0, end=end_s, bounds=(0, end_s)),
        y_range=Range1d(start=ranks - 0.5, end=-0.5),
    )
    plot.yaxis.ticker = list(range(ranks))
    plot.yaxis.axis_label = "rank"
    plot.ygrid.visible = False
    columns: dict[str, list[tuple[int, float, float, int, int]]] = {}
    for rank in range(ranks):
        times = zip(step.timeline.start(rank).tolist(), step.timeline.end(rank).tolist(), strict=True)
        for action, (start, end) in zip(step.schedule.actions(rank), times, strict=True):
            micro_batch = action.micro_batch + step.first_micro_batch
            columns.setdefault(action.kind, []).append((rank, start, end, action.stage, micro_batch))
    for kind, rows in columns.items():
        table = np.array(rows)
        data = dict(zip(("rank", "start", "end", "stage", "micro_batch"), table.T, strict=True))
        source = ColumnDataSource({**data, "ms": 1e3 * (table[:, 2] - table[:, 1])})
        bars = plot.hbar(
            "rank",
            left="start",
            right="end",
            height=0.8,
            source=source,
            color=ACTIONS[kind],
            line_color=None,
            legend_label=MEANING[kind],
        )
        tips = [("", f"{MEANING[kind]} of micro-batch @micro_batch on stage @stage, rank @rank")]
        plot.add_tools(
            HoverTool(renderers=[bars], tooltips=[*tips, ("begins", "@start{0.0000} s"), ("ms", "@ms{0.00}")])
        )
    plot.add_layout(plot.legend[0], "right")
    return plot
