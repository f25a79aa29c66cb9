"""A simulated step as a drawing in text: one row per rank, cells as wide as their actions are long.

p = 2, m = 2, t_f = 1, t_b = 2, four columns per unit of time ::

            |0                  |5 t                idle
    rank 0  F0--F1--........B0======....B1======     33%
    rank 1  ....F0--B0======F1--B1======........     33%

What a column shows is what the rank does in the middle of it, so a cell at least one column wide is never lost.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from autotune.predict.orders import KINDS
from autotune.report.timeline.step import Step
from autotune.report.units import show_seconds

FILLS = dict(zip(KINDS, "-=~#", strict=True))
COLOURS = dict(zip(KINDS, ("white on blue", "black on green", "black on cyan", "black on magenta"), strict=True))
MEANING = dict(zip(KINDS, ("forward", "backward", "input gradient", "weight gradient"), strict=True))
IDLE = "."
NARROWEST = 40
"""Columns that a drawing needs at least."""

IDLE_COLUMN = 8
"""Width of what stands right of a row: the share of the time that the rank is idle."""

Indices = NDArray[np.int64]


def draw(step: Step, width: int, end_s: float | None = None) -> list[Text]:
    """Return the whole drawing, at most ``width`` characters wide: title, time axis, ranks, legend. ``end_s``: when the
    axis ends, where it is not to end with the step."""
    room = max(width, NARROWEST) - gutter(step) - IDLE_COLUMN
    column_s = end_s / room if end_s is not None else column_seconds(step, room)
    columns = ceil(step.timeline.makespan / column_s - 1e-6)
    shown = [actions_shown(step, rank, columns, column_s) for rank in range(step.schedule.ranks)]
    axis = " " * gutter(step) + time_axis(columns, column_s, step.unit_times)
    rows = [rank_row(step, rank, indices) for rank, indices in enumerate(shown)]
    return [
        Text(title(step)),
        Text(f"{axis}{'idle':>{gutter(step) + columns + IDLE_COLUMN - len(axis)}}"),
        *rows,
        legend(step),
        *map(Text, lost_actions(step, shown, column_s)),
    ]


def print_timeline(step: Step, console: Console, width: int | None = None) -> None:
    """Print the drawing, below it to the same scale that of the real step, where it is known, and what they show in
    words; colour where the console has it."""
    width = width or console.width
    end_s = max(one.timeline.makespan for one in step.each) if step.recorded else None
    lines = [line for one in step.each for line in (*draw(one, width, end_s), Text())]
    for line in [*lines, *map(Text, summary_lines(step))]:
        console.print(line, soft_wrap=True, highlight=False)


def title(step: Step) -> str:
    """Return which schedule it is, of what size."""
    schedule = step.schedule
    stages = f", {schedule.stages} stages" if schedule.virtual_stages > 1 else ""
    ranks = f"{schedule.ranks} rank{'s' if schedule.ranks > 1 else ''}"
    size = f" of {step.micro_batch_size}" if step.micro_batch_size else ""
    times = "; unit times: t_f = t_b = 1 t, messages take none" if step.unit_times else ""
    count = f"m = {schedule.micro_batches} micro-batch{'es' if schedule.micro_batches > 1 else ''}"
    real = "; as it really ran" if step.is_recorded else "; as predicted" if step.recorded else ""
    return f"{step.name}, {ranks}{stages}, {count}{size}{times}{real}"


def gutter(step: Step) -> int:
    """Return characters left of the first column."""
    return len(f"rank {step.schedule.ranks - 1}  ")


def show_time(step: Step, seconds: float) -> str:
    """Return seconds as people read them; ``14 t`` where there are only unit times."""
    return f"{round(seconds, 2):g} t" if step.unit_times else show_seconds(seconds)


# --- time to columns ----------------------------------------------------------------------------------------------


def column_seconds(step: Step, room: int) -> float:
    """Return how long one of at most ``room`` columns is.

    Where all times are multiples of the shortest action, that is a whole number of columns, so equal actions are drawn
    alike.
    """
    timeline = step.timeline
    lengths = timeline.ends - timeline.starts
    shortest = float(lengths[lengths > 0].min())
    units = np.concatenate((timeline.starts, timeline.ends)) / shortest
    columns_per_unit = room // max(1, round(timeline.makespan / shortest))
    if columns_per_unit and np.allclose(units, units.round(), rtol=0, atol=1e-6):
        return shortest / columns_per_unit
    return timeline.makespan / room


def actions_shown(step: Step, rank: int, columns: int, column_s: float) -> Indices:
    """Return int64[columns]: the action of the rank in the middle of each column, as an index into its row; -1
    if idle."""
    starts, ends = step.timeline.start(rank), step.timeline.end(rank)
    moments = (np.arange(columns) + 0.5) * column_s
    found = np.searchsorted(starts, moments, side="right") - 1
    return np.where((found >= 0) & (moments < ends[found]), found, -1)


def lost_actions(step: Step, shown: list[Indices], column_s: float) -> Iterator[str]:
    """Say so where cells would be narrower than a column."""
    lengths = step.timeline.ends - step.timeline.starts
    drawn = sum(len(np.unique(indices[indices >= 0])) for indices in shown)
    lost = int((lengths > 0).sum()) - drawn
    if lost > 0:
        yield (
            f"A column is {show_time(step, column_s)}, longer than some actions: each shows what the rank does in its "
            f"middle, and {lost} of {len(lengths)} actions fall between; --format trace shows them all."
        )


def time_axis(columns: int, column_s: float, unit_times: bool) -> str:
    """Return ``|0      |20 ms  |40 ms``: round times about every ten columns, as far as they fit."""
    step_s = round_up(10 * column_s)
    scale, unit = (1.0, " t") if unit_times else next(u for u in UNITS if step_s >= u[0] or u is UNITS[-1])
    line = ""
    for tick in range(ceil(columns * column_s / step_s)):
        at = round(tick * step_s / column_s)
        label = f"|{tick * step_s / scale:g}{unit if tick else ''}"
        if at + len(label) <= columns:
            line = f"{line:<{at}}{label}"
    return line


UNITS = ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))


def round_up(seconds: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, ... in any power of ten."""
    power: float = 10.0 ** floor(log10(seconds))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= seconds * (1 - 1e-9))


# --- a row --------------------------------------------------------------------------------------------------------


def rank_row(step: Step, rank: int, shown: Indices) -> Text:
    """Return the rank's name, its cells, its share of idle time."""
    row = Text(f"rank {rank:>{len(str(step.schedule.ranks - 1))}}  ")
    order = step.schedule.order(rank)
    edges = [0, *(np.flatnonzero(np.diff(shown)) + 1).tolist(), len(shown)]
    for begin, end in pairwise(edges):
        action = int(shown[begin])
        if action < 0:
            row.append(IDLE * (end - begin), style="bright_black")
            continue
        kind = KINDS[order.kind[action]]
        stage = int(order.stage[action]) if step.schedule.virtual_stages > 1 else None
        number = int(order.micro_batch[action]) + step.first_micro_batch
        row.append(cell(kind, number, stage, end - begin), style=COLOURS[kind])
    idle = step.timeline.idle[rank] / step.timeline.makespan
    return row.append(f"{idle:>{IDLE_COLUMN}.0%}")


def cell(kind: str, micro_batch: int, stage: int | None, width: int) -> str:
    """Return ``F3--``: as much of stage, kind and micro-batch as fits, filled up with the shade of the kind.

    In order of width: ``F``, ``F3``, and with several stages per rank torch's ``2F3``.
    """
    labels = [kind, f"{kind}{micro_batch}"] + ([f"{stage}{kind}{micro_batch}"] if stage is not None else [])
    label = [text for text in labels if len(text) <= width][-1]
    return label + FILLS[kind] * (width - len(label))


def legend(step: Step) -> Text:
    """Return the kinds of action that occur, each in its shade and colour."""
    kinds = {KINDS[kind] for kind in np.unique(step.timeline.graph.kind)}
    line = Text(" " * gutter(step))
    for kind in KINDS:
        if kind in kinds:
            line.append(kind + FILLS[kind] * 2, style=COLOURS[kind]).append(f" {MEANING[kind]}   ")
    return line.append(IDLE * 3, style="bright_black").append(" idle")


# --- in words -----------------------------------------------------------------------------------------------------


def summary_lines(step: Step) -> list[str]:
    """Return the step time, the idle time, the critical path, and where it is known how the real step differs: a line
    each."""
    lines = [step_text(step), idle_text(step), path_text(step)]
    return [*lines, recorded_text(step)] if step.recorded else lines


def recorded_text(step: Step) -> str:
    """Return the real step beside the predicted one."""
    assert step.recorded is not None
    middle, most = (share * step.step_time_s for share in step.lateness)
    return (
        f"As it really ran: the step {show_time(step, step.recorded.step_time_s)}, idle"
        f" {step.recorded.timeline.bubble_fraction:.1%}; actions began {show_time(step, middle)} from their predicted"
        f" start in the median, {show_time(step, most)} at most."
    )


def step_text(step: Step) -> str:
    """Return how long the step takes and what is not drawn."""
    after = "reduction and optimizer" if any(step.rank_reduction_s) else "optimizer"
    parts = [(after, step.optimizer_s), ("overhead of the step", step.overhead_s)]
    more = [f"{name} {show_time(step, seconds)}" for name, seconds in parts if seconds]
    drawn = f" = {show_time(step, step.timeline.makespan)} as drawn + {' + '.join(more)}" if more else ""
    return f"Step: {show_time(step, step.step_time_s)}{drawn}."


def idle_text(step: Step) -> str:
    """Return how much of the drawn device time is idle, and where least and most."""
    idle = step.timeline.idle / step.timeline.makespan
    least, most = int(idle.argmin()), int(idle.argmax())
    span = f", from {idle[least]:.1%} (rank {least}) to {idle[most]:.1%} (rank {most})"
    same = ", the same on every rank" if len(idle) > 1 else ""
    uneven = idle[most] - idle[least] > 5e-4
    return f"Idle: {step.timeline.bubble_fraction:.1%} of the device time{span if uneven else same}."


def path_text(step: Step) -> str:
    """Return the chain of actions that the step cannot be shorter than: how long, where most of it is, what it waits
    for."""
    timeline, path = step.timeline, step.critical_path
    seconds = (timeline.ends - timeline.starts)[path]
    ranks = np.searchsorted(timeline.graph.first, path, side="right") - 1
    per_rank = np.bincount(ranks, weights=seconds)
    longest = int(per_rank.argmax())
    share = per_rank[longest] / timeline.makespan
    waiting = timeline.makespan - float(seconds.sum())
    messages = f"; messages under way: {show_time(step, waiting)}" if waiting > 1e-9 * timeline.makespan else ""
    hops = int((np.diff(ranks) != 0).sum())
    return (
        f"Critical path: {len(path)} of {len(timeline.ends)} actions, {hops} change{'' if hops == 1 else 's'} of rank; "
        f"longest on rank {longest}: {show_time(step, float(per_rank[longest]))}, {share:.0%} of the time{messages}."
    )
