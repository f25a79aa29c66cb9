"""Charts of bars in parts: the memory of every rank, where the time of a step goes, the recorded step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Range1d

from autotune.predict.orders import KINDS
from autotune.records.report import CandidateReport, Report
from autotune.report.page.chart import Chart, Key, Sign, inked, mark, memory_unit, plain
from autotune.report.page.colours import ACTIONS, IDLE, INK, INK_HEX, MEMORY_PARTS, OPTIMIZER, OUT, PARTS
from autotune.report.page.plots import mark_keys, marked
from autotune.report.timeline.step import Step
from autotune.report.timeline.timeline import MEANING
from autotune.report.units import show_bytes

Labels = list[str] | list[tuple[str, str]]
"""The labels of bars; in pairs: of the group that a bar stands in, and its own."""

MOST_LABELS = 40
LIMIT_IN_SIGHT = 2.0  # times the highest peak
ABOVE = 0.05  # of the highest bar, between a bar and what is marked above it
AFTER = "optimizer and overhead"


def stacked(labels: Labels, parts: dict[str, list[float]], colours: dict[str, str], unit: str) -> Chart:
    """Return bars of parts, one for each label, with room for a mark above the highest."""
    plot = plain(x_range=FactorRange(factors=labels, group_padding=0.5), y_axis_label=unit)
    source = ColumnDataSource({"label": labels, **parts})
    known = [name for name in parts if any(parts[name])]
    bars = plot.vbar_stack(known, x="label", width=0.8, source=source, color=[colours[name] for name in known])
    for name, bar in zip(known, bars, strict=True):
        tips = [("", "@label"), (name, f"@{{{name}}}{{0.000}} {unit}")]
        plot.add_tools(HoverTool(renderers=[bar], tooltips=tips))
    highest = max(map(sum, zip(*parts.values(), strict=True)), default=0.0)
    plot.y_range = Range1d(start=0, end=(1 + 3 * ABOVE) * highest or 1.0)
    plot.xgrid.grid_line_color = None
    plot.xaxis.major_tick_line_color = None
    # On a telephone the labels of fourteen bars just fit; where there are too many, the bar under the pointer is named.
    plot.xaxis.major_label_text_font_size = "10px" if len(labels) <= MOST_LABELS else "0px"
    if labels and isinstance(labels[0], tuple):
        plot.xaxis.group_text_font_size = "10px"
        plot.xaxis.separator_line_alpha = 0
    return Chart(plot, [Key(name, colours[name]) for name in known])


def said(report: Report, name: str) -> str:
    """Return what a figure that is not the cost model's is called: in a prediction, no step of our own ran."""
    return f"{name} of a run made elsewhere" if report.is_predicted else f"measured {name}"


# --- memory -------------------------------------------------------------------------------------------------------


def memory(report: Report, rows: Sequence[CandidateReport]) -> Chart | None:
    """Return peak memory of each rank for every m, by its parts, with the limit and what was measured; None where it is
    not known."""
    known = [(row, row.prediction.memory_split_bytes) for row in rows if row.prediction.memory_split_bytes]
    if not known:
        return None
    labels = [(f"m={row.micro_batches}", f"r{rank}") for row, split in known for rank in range(len(split or ()))]
    flat = [one for _, split in known for one in split or ()]
    unit, size = memory_unit(max(one.total for one in flat))
    parts = {name: [getattr(one, name) / size for one in flat] for name in MEMORY_PARTS}
    chart = stacked(labels, parts, MEMORY_PARTS, unit)
    highest = max(one.total for one in flat) / size
    keys = list(chart.keys) + add_measured_peaks(chart.figure, rows, unit, size, said(report, "peak"))
    splits = {row.label: split or () for row, split in known}
    drawn = [row for row, _ in known]
    for row, is_rival in marked(report, drawn):
        totals = [one.total for one in splits[row.label]]
        place = (f"m={row.micro_batches}", f"r{totals.index(max(totals))}")
        mark(chart.figure, place, max(row.peak or 0, *totals) / size + ABOVE * highest, is_rival)
    keys = [*mark_keys(report, drawn), *keys]
    return Chart(chart.figure, keys + add_limit(chart.figure, report.memory_limit_bytes, size, highest))


def add_measured_peaks(plot: Any, rows: Sequence[CandidateReport], unit: str, size: int, name: str) -> list[Key]:
    """Add a dash over each bar at what the rank was seen to hold; return its key, none where nothing was measured."""
    found = [
        ((f"m={row.micro_batches}", f"r{rank}"), peak / size)
        for row in rows
        if row.measurement and row.prediction.memory_split_bytes
        for rank, peak in enumerate(row.measurement.peak_memory_bytes or ())
    ]
    if not found:
        return []
    labels, peaks = zip(*found, strict=True)
    source = ColumnDataSource({"label": labels, "peak": peaks})
    dashes = inked(
        plot.scatter("label", "peak", source=source, marker="dash", size=16, line_width=3, line_color=INK_HEX)
    )
    plot.add_tools(HoverTool(renderers=[dashes], tooltips=[("", "@label"), (name, f"@peak{{0.000}} {unit}")]))
    plot.y_range.end = max(plot.y_range.end, (1 + 3 * ABOVE) * max(peaks))
    return [Key(name, INK, Sign.DASH)]


def add_limit(plot: Any, limit_bytes: int | None, size: int, highest: float) -> list[Key]:
    """Add the limit as a line, at the upper edge where it lies far above the bars; return its key. ``size``: bytes of
    the unit; ``highest``: the highest bar, in that unit."""
    if not limit_bytes:
        return []
    limit, words = limit_bytes / size, f"memory limit, {show_bytes(limit_bytes)}"
    if limit <= LIMIT_IN_SIGHT * highest:
        plot.y_range.end = max(plot.y_range.end, 1.05 * limit)
    else:
        plot.y_range.end = 1.05 * plot.y_range.end
        words += f": far above, {limit / highest:.0f} times the highest bar" if highest else ""
    place = min(limit, 0.995 * plot.y_range.end)
    plot.hspan(y=[place], line_color=OUT, line_dash="dashed", line_width=2)
    return [Key(words, OUT, Sign.DASHED)]


# --- the time of a step -------------------------------------------------------------------------------------------


def where_time_goes(report: Report, rows: Sequence[CandidateReport]) -> Chart:
    """Return the mean rank's step for every m, by what it goes to, with the steps that were measured over it."""
    labels = [f"m={row.micro_batches}" for row in rows]
    parts = {name: [getattr(row.prediction.time_split_s, name) for row in rows] for name in PARTS}
    chart = stacked(labels, parts, PARTS, "seconds")
    keys = list(chart.keys) + add_measured_steps(chart.figure, rows, said(report, "step"))
    room = ABOVE * chart.figure.y_range.end
    for row, is_rival in marked(report, rows):
        highest = max((row.prediction.step_time_s, *(row.measurement.step_times_s if row.measurement else ())))
        mark(chart.figure, f"m={row.micro_batches}", highest + room, is_rival)
        chart.figure.y_range.end = max(chart.figure.y_range.end, highest + 2 * room)
    return Chart(chart.figure, [*mark_keys(report, rows), *keys])


def add_measured_steps(plot: Any, rows: Sequence[CandidateReport], name: str) -> list[Key]:
    """Add the median and the range of the raw steps of what ran; return their key, none where nothing did."""
    found = [(f"m={row.micro_batches}", row.measurement) for row in rows if row.measurement]
    if not found:
        return []
    data = {
        "label": [label for label, _ in found],
        "median": [one.step_time_s for _, one in found],
        "low": [min(one.step_times_s) for _, one in found],
        "high": [max(one.step_times_s) for _, one in found],
        "steps": [len(one.step_times_s) for _, one in found],
    }
    source = ColumnDataSource(data)
    inked(plot.segment("label", "low", "label", "high", source=source, color=INK_HEX, line_width=2))
    dashes = inked(
        plot.scatter("label", "median", source=source, marker="dash", size=20, line_width=3, line_color=INK_HEX)
    )
    tips = [("", "@label"), (name, "@median{0.000} s (@low{0.000} to @high{0.000}), @steps raw steps")]
    plot.add_tools(HoverTool(renderers=[dashes], tooltips=tips))
    plot.y_range.end = max(plot.y_range.end, (1 + ABOVE) * max(max(one.step_times_s) for _, one in found))
    return [Key(f"{name}: median and range of the raw steps", INK, Sign.DASH)]


def recorded_parts(step: Step) -> dict[str, list[float]]:
    """Return the seconds that the mean rank spends in each kind of action, idle, and after its last action: in the
    simulated step, then in the real one."""
    return {name: [of_step(one)[name] for one in step.each] for name in of_step(step)}


def of_step(step: Step) -> dict[str, float]:
    """Return the seconds of the mean rank's step by what it does."""
    timeline, ranks = step.timeline, step.schedule.ranks
    seconds = np.bincount(timeline.graph.kind, timeline.ends - timeline.starts, len(KINDS)) / ranks
    busy = {MEANING[kind]: float(seconds[at]) for at, kind in enumerate(KINDS) if seconds[at]}
    return {**busy, "idle": float(timeline.idle.mean()), AFTER: step.optimizer_s + step.overhead_s}


def recorded(step: Step) -> Chart:
    """Return the simulated step beside the real one, by what the mean rank does in them."""
    parts = recorded_parts(step)
    colours = {MEANING[kind]: colour for kind, colour in ACTIONS.items()} | {"idle": IDLE, AFTER: OPTIMIZER}
    plot = plain(
        height=150, y_range=FactorRange(factors=["measured", "predicted"]), x_axis_label="seconds of the mean rank"
    )
    source = ColumnDataSource({"step": [one.source for one in step.each], **parts})
    bars = plot.hbar_stack(
        list(parts), y="step", height=0.7, source=source, color=[colours[name] for name in parts], line_color=None
    )
    for name, bar in zip(parts, bars, strict=True):
        plot.add_tools(HoverTool(renderers=[bar], tooltips=[("", "@step"), (name, f"@{{{name}}}{{0.0000}} s")]))
    plot.x_range.start = 0
    plot.ygrid.grid_line_color = None
    return Chart(plot, [Key(name, colours[name]) for name in parts])
