"""A simulated step for programs: as JSON, and as a Chrome trace that Perfetto (ui.perfetto.dev) opens."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from autotune.errors import UsageError
from autotune.records.base import SCHEMA_VERSION, write_json, write_text
from autotune.report.timeline.step import Step
from autotune.report.timeline.timeline import MEANING, NARROWEST, print_timeline

WIDTH_IN_FILES = 160
"""Columns of a drawing that is written to a file, where no --width says otherwise."""


def actions(step: Step) -> Iterator[dict[str, Any]]:
    """Return every action, rank after rank, each rank in order. Micro-batches carry the numbers that are drawn."""
    timeline = step.timeline
    for rank in range(step.schedule.ranks):
        times = zip(timeline.start(rank).tolist(), timeline.end(rank).tolist(), strict=True)
        for action, (start, end) in zip(step.schedule.actions(rank), times, strict=True):
            yield {
                "rank": rank,
                "kind": action.kind,
                "stage": action.stage,
                "micro_batch": action.micro_batch + step.first_micro_batch,
                "start_s": start,
                "end_s": end,
            }


def timeline_document(step: Step) -> dict[str, Any]:
    """Return what ``--format json`` prints: the step's totals, each rank's, and every action.

    ``critical_path`` holds indices into ``actions``. With ``unit_times`` a second stands for one t. ``recorded``: the
    same of the real step, where the report holds one, else None.
    """
    timeline, schedule = step.timeline, step.schedule
    totals = zip(timeline.busy.tolist(), timeline.idle.tolist(), strict=True)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "autotune.timeline",
        "schedule": step.name,
        "stages": schedule.stages,
        "virtual_stages": schedule.virtual_stages,
        "micro_batches": schedule.micro_batches,
        "micro_batch_size": step.micro_batch_size,
        "unit_times": step.unit_times,
        "step_time_s": step.step_time_s,
        "makespan_s": timeline.makespan,
        "optimizer_s": step.optimizer_s,
        "step_overhead_s": step.overhead_s,
        "bubble_fraction": timeline.bubble_fraction,
        "ranks": [
            {"rank": rank, "busy_s": busy, "idle_s": idle, "bubble_fraction": idle / timeline.makespan}
            for rank, (busy, idle) in enumerate(totals)
        ],
        "critical_path": step.critical_path,
        "actions": list(actions(step)),
        "recorded": timeline_document(step.recorded) if step.recorded else None,
    }


def trace_document(step: Step) -> dict[str, Any]:
    """Return what ``--format trace`` prints: a thread per rank, a complete event per action; microseconds. The
    predicted step is process 0, the measured one, where the report holds it, process 1 below.

    Format: "Trace Event Format" of Chromium, JSON object form. Times are rounded to whole nanoseconds before lengths
    are taken, so that an event never reaches into the next one of its thread.
    """
    return {
        "displayTimeUnit": "ms",
        "otherData": {"unit_times": step.unit_times, "micro_batch_size": step.micro_batch_size},
        "traceEvents": [
            event
            for process, one in enumerate(step.each)
            for event in (*names(one, process), *(event_of(action, process) for action in actions(one)))
        ],
    }


def names(step: Step, process: int) -> Iterator[dict[str, Any]]:
    """Return the metadata that names the process and its threads, and keeps them in order."""
    schedule = step.schedule
    source = f", {step.source}" if step.recorded or step.is_recorded else ""
    name = f"{step.name}, p = {schedule.ranks}, m = {schedule.micro_batches}{source}"

    def about(thread: int, what: str, **args: object) -> dict[str, Any]:
        return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": args}

    yield about(0, "process_name", name=name)
    yield about(0, "process_sort_index", sort_index=process)
    for rank in range(schedule.ranks):
        yield about(rank, "thread_name", name=f"rank {rank}")
        yield about(rank, "thread_sort_index", sort_index=rank)


def event_of(action: dict[str, Any], process: int) -> dict[str, Any]:
    """Return one action as a complete ("X") event."""
    start, end = round(action["start_s"] * 1e9), round(action["end_s"] * 1e9)
    return {
        "name": f"{action['kind']}{action['micro_batch']}",
        "cat": MEANING[action["kind"]],
        "ph": "X",
        "pid": process,
        "tid": action["rank"],
        "ts": start / 1000,
        "dur": (end - start) / 1000,
        "args": {name: action[name] for name in ("stage", "micro_batch", "kind")},
    }


DOCUMENTS: dict[str, Callable[[Step], dict[str, Any]]] = {"json": timeline_document, "trace": trace_document}
"""By the value of --format; the third, text, is the drawing."""


def check_format(form: str, width: int | None) -> None:
    """Raise UsageError for a format that does not exist, and a width that it cannot have."""
    if form not in ("text", *DOCUMENTS):
        raise UsageError(f"there is no format {form!r}; use --format text, json or trace")
    if width is not None and form != "text":
        raise UsageError(f"--width is for the drawing; leave it out with --format {form}")
    if width is not None and width < NARROWEST:
        raise UsageError(f"--width must be at least {NARROWEST} (given: {width})")


def save_step(step: Step, form: str, path: Path, width: int | None) -> str:
    """Write the step to ``path`` and say so; raise InputError where that cannot be done."""
    if form in DOCUMENTS:
        write_json(path, DOCUMENTS[form](step))
    else:
        text = io.StringIO()
        print_timeline(step, Console(file=text, width=width or WIDTH_IN_FILES, color_system=None))
        write_text(path, text.getvalue())
    hint = "; ui.perfetto.dev opens it" if form == "trace" else ""
    return f"{path}: {len(step.timeline.ends)} actions on {step.schedule.ranks} ranks{hint}\n"
