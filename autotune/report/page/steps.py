"""The timeline of a step as a chart: ranks as rows, actions as bars, with their micro-batches, messages and the
optimizer."""

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, HoverTool, Range1d

from autotune.predict.orders import KINDS
from autotune.report.page.chart import Chart, Key, Sign, plain, zoom_along_time
from autotune.report.page.colours import ACTIONS, MESSAGES, NUMBERS, OPTIMIZER, OVERHEAD, REDUCTION
from autotune.report.page.stacks import AFTER
from autotune.report.timeline.step import Step
from autotune.report.timeline.timeline import MEANING

THICK = 0.8  # of a row, that bars take
MOST_MESSAGES = 2000
"""The most messages that are drawn: of more, none could be told from the others."""

NUMBERED = CustomJS(
    code="""
// A number is shown where its bar has room for it, which is asked again when the chart is zoomed or changes its width.
const {start, end, label} = source.data;
const pixels = plot.inner_width / (range.end - range.start);
source.data.text = Array.from(label, (one, at) => (end[at] - start[at]) * pixels > 7 * one.length + 2 ? one : "");
source.change.emit();
"""
)
"""What is run in the browser; its arguments are set for each chart."""


def timeline(step: Step, span: Range1d) -> Chart:
    """Return a step along ``span``, the time that all charts of a page share: whichever is zoomed, all are."""
    ranks = step.schedule.ranks
    plot = plain(
        height=70 + 28 * ranks,
        tools="xpan,xbox_zoom,reset,save",
        x_axis_label="seconds",
        x_range=span,
        y_range=Range1d(start=ranks - 0.5, end=-0.5),
    )
    zoom_along_time(plot)
    plot.yaxis.ticker = list(range(ranks))
    plot.yaxis.axis_label = "rank"
    plot.ygrid.visible = False
    keys = [*add_messages(plot, step), *add_actions(plot, step), *add_rest(plot, step)]
    add_numbers(plot, step, span)
    order = {key.label: at for at, key in enumerate(keys)}
    messages = [key for key in keys if key.sign is Sign.LINE]
    keys = [key for key in sorted(keys, key=lambda key: order[key.label]) if key not in messages] + messages
    return Chart(plot, keys)


def columns(step: Step, chosen: Any) -> dict[str, Any]:
    """Return rank, start, end, stage and micro-batch of the ``chosen`` actions."""
    graph, timeline = step.timeline.graph, step.timeline
    return {
        "rank": graph.rank[chosen],
        "start": timeline.starts[chosen],
        "end": timeline.ends[chosen],
        "stage": graph.stage[chosen],
        "micro_batch": graph.micro_batch[chosen] + step.first_micro_batch,
    }


def add_actions(plot: Any, step: Step) -> list[Key]:
    """Add every action as a bar of its length, named under the pointer; return a key for each kind."""
    keys = []
    for at, kind in enumerate(KINDS):
        found = np.flatnonzero(step.timeline.graph.kind == at)
        if not len(found):
            continue
        data = columns(step, found)
        source = ColumnDataSource({**data, "ms": 1e3 * (data["end"] - data["start"])})
        bars = plot.hbar(
            "rank", left="start", right="end", height=THICK, source=source, color=ACTIONS[kind], line_color=None
        )
        tips = [
            ("", f"{MEANING[kind]} of micro-batch @micro_batch on stage @stage, rank @rank"),
            ("begins", "@start{0.0000} s"),
            ("ms", "@ms{0.00}"),
        ]
        plot.add_tools(HoverTool(renderers=[bars], tooltips=tips))
        keys.append(Key(MEANING[kind], ACTIONS[kind]))
    return keys


def add_numbers(plot: Any, step: Step, span: Range1d) -> None:
    """Add the number of its micro-batch to each action that is wide enough for it."""
    data = columns(step, np.arange(len(step.timeline.ends)))
    label = [str(number) for number in data["micro_batch"]]
    source = ColumnDataSource(
        {
            "rank": data["rank"],
            "start": data["start"],
            "end": data["end"],
            "middle": (data["start"] + data["end"]) / 2,
            "label": label,
            "text": [""] * len(label),
            "colour": [NUMBERS[KINDS[kind]] for kind in step.timeline.graph.kind],
        }
    )
    plot.text(
        "middle",
        "rank",
        text="text",
        source=source,
        text_color="colour",
        text_font_size="11px",
        text_align="center",
        text_baseline="middle",
    )
    shown = CustomJS(args={"source": source, "range": span, "plot": plot}, code=NUMBERED.code)
    span.js_on_change("start", shown)
    span.js_on_change("end", shown)
    plot.js_on_change("inner_width", shown)


def add_messages(plot: Any, step: Step) -> list[Key]:
    """Add a line for each message, from the end of the action that makes it to the start of the one that takes it;
    return its key."""
    graph, timeline = step.timeline.graph, step.timeline
    takers = np.flatnonzero(graph.producer < len(timeline.ends))
    makers = graph.producer[takers]
    moved = graph.rank[makers] != graph.rank[takers]
    takers, makers = takers[moved], makers[moved]
    if not 0 < len(takers) <= MOST_MESSAGES:
        return []
    down = np.sign(graph.rank[takers] - graph.rank[makers]) * THICK / 2
    source = ColumnDataSource(
        {
            "made": timeline.ends[makers],
            "taken": timeline.starts[takers],
            "above": graph.rank[makers] + down,
            "below": graph.rank[takers] - down,
        }
    )
    plot.segment("made", "above", "taken", "below", source=source, color=MESSAGES, line_width=1.5)
    return [Key("message", MESSAGES, Sign.LINE)]


def add_rest(plot: Any, step: Step) -> list[Key]:
    """Add what follows the actions: reduction and optimizer of each rank, and what the runtime takes for a step; of a
    real step all together, because nothing tells them apart. Return their keys."""
    timeline, ranks = step.timeline, np.arange(step.schedule.ranks)
    ends, last = timeline.rank_ends, np.full(len(ranks), timeline.makespan)
    if step.is_recorded:
        return add_bars(plot, AFTER, OPTIMIZER, last, last + step.optimizer_s)
    begin = timeline.makespan + step.optimizer_s
    reductions, optimizers = (
        np.array(seconds or (0.0,) * len(ranks)) for seconds in (step.rank_reduction_s, step.rank_optimizer_s)
    )
    return [
        *add_bars(plot, "reduction", REDUCTION, ends, ends + reductions),
        *add_bars(plot, "optimizer", OPTIMIZER, ends + reductions, ends + reductions + optimizers),
        *add_bars(plot, "overhead", OVERHEAD, np.full(len(ranks), begin), np.full(len(ranks), step.step_time_s)),
    ]


def add_bars(plot: Any, name: str, colour: str, starts: Any, ends: Any) -> list[Key]:
    """Add a bar for each rank; return their key, none where no bar has a length."""
    if not (ends > starts).any():
        return []
    data = {"rank": np.arange(len(starts)), "start": starts, "end": ends, "ms": 1e3 * (ends - starts)}
    bars = plot.hbar(
        "rank",
        left="start",
        right="end",
        height=THICK,
        source=ColumnDataSource(data),
        color=colour,
        line_color=None,
    )
    plot.add_tools(HoverTool(renderers=[bars], tooltips=[("", f"{name}, rank @rank"), ("ms", "@ms{0.00}")]))
    return [Key(name, colour)]
