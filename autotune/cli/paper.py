"""The commands that predict from a profile and measure nothing: predict, timeline, scale and ramp."""

import sys
from pathlib import Path
from typing import Any

from autotune.cli.output import console, print_json, print_notes


def predict(path: Path, json_output: bool, **settings: Any) -> None:
    """Predict throughput and memory of every candidate from a profile; nothing is measured."""
    from autotune.predict.sweep import sweep
    from autotune.records.profile import read_profile
    from autotune.records.report import prediction_document
    from autotune.report.table import print_predictions

    pairs, missing = sweep(read_profile(path), settings)
    print_notes(missing)
    print_json(prediction_document(pairs)) if json_output else print_predictions(pairs, console())


def timeline(form: str, out: Path | None, width: int | None, **request: Any) -> None:
    """Draw a schedule with real durations, or check and draw one of your own; nothing is measured."""
    from autotune.report.timeline.step import Request, simulate_step
    from autotune.report.timeline.timeline import print_timeline
    from autotune.report.timeline.trace import DOCUMENTS, check_format, save_step

    check_format(form, width)
    step = simulate_step(Request(**request))
    print_notes(step.notes)
    if out is not None:
        sys.stdout.write(save_step(step, form, out, width))
    elif form == "text":
        print_timeline(step, console(), width)
    else:
        print_json(DOCUMENTS[form](step))


def scale(path: Path, html: Path | None, json_output: bool, **flags: Any) -> None:
    """Predict pipelines of hundreds of ranks over a described network, and say how far to trust that."""
    from autotune.report.scale import Flags, plan_of, print_scale

    progress = console(stderr=True)
    plan = plan_of(path, Flags(**flags), lambda ranks, name: progress.print(f"p = {ranks}, {name}", highlight=False))
    if html is not None:
        from autotune.records.base import write_text
        from autotune.report.page.scale import scale_page

        write_text(html, scale_page(plan))
    print_json(plan) if json_output else print_scale(plan, console())


def ramp(
    path: Path,
    rampup_batch_size: tuple[int, int, int],
    train_samples: int,
    global_batch_size: int | None,
    data_parallel: int,
    schedule: str | None,
    memory_limit: str | None,
    json_output: bool,
) -> None:
    """Predict m in each phase of Megatron's batch ramp, and which micro-batch size serves all phases best."""
    from autotune.plan.ramp import Ramp
    from autotune.report.ramp import plan_of, print_ramp, ramp_document

    asked = Ramp(*rampup_batch_size, global_batch_size or 0, train_samples, data_parallel)
    plan = plan_of(path, asked, schedule, memory_limit)
    print_json(ramp_document(plan)) if json_output else print_ramp(plan, console())
