"""The commands that predict from a profile and measure nothing: predict, timeline, scale and ramp."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.cli.output import console, print_json, print_notes

if TYPE_CHECKING:
    from autotune.plan.whatif import Question
    from autotune.records.profile import Profile
    from autotune.records.report import Report


def predict(path: Path, out: Path | None, html: Path | None, json_output: bool, **settings: Any) -> None:
    """Predict throughput and memory of every candidate from a profile; nothing is measured."""
    from autotune.report.paper.whatif import case_report, question_of
    from autotune.report.timeline.step import read_source

    profile = read_source(path)[1][0]
    question = question_of(settings)
    if question.is_range:
        show_what_if(profile, question, settings, out, html, json_output)
        return
    (case,) = question.cases
    flags = {name: value for name, value in settings.items() if name not in ("stages", "link", "speed_up")}
    show_prediction(case_report(profile, case, flags, typed()), out, html, json_output)


def show_what_if(
    profile: "Profile",
    question: "Question",
    settings: dict[str, Any],
    out: Path | None,
    html: Path | None,
    json_output: bool,
) -> None:
    """Print which m is best in each case, and write the record and its page where asked for."""
    from autotune.plan.whatif import ask
    from autotune.predict.sweep import settled
    from autotune.records.base import write_record, write_text
    from autotune.report.paper.whatif import print_what_if
    from autotune.schedule_spec import default_schedule

    given = {name: settings[name] for name in ("micro_batches", "schedule") if settings[name] is not None}
    config = settled(profile, given | {"batch": max((one or 0 for one in question.batch), default=0) or None})
    names = config.schedule if "schedule" in given else (default_schedule(profile.virtual_stages),)
    found = ask(profile, question, config.micro_batches, names)
    if out is not None:
        write_record(out, found)
    if html is not None:
        from autotune.report.page.whatif import what_if_page

        write_text(html, what_if_page(found))
    print_json(found) if json_output else print_what_if(found, console())


def show_prediction(report: "Report", out: Path | None, html: Path | None, json_output: bool) -> None:
    """Print a prediction with its notes, and write it and its page where asked for."""
    from autotune.records.base import write_record, write_text
    from autotune.report.table import print_report

    print_notes(report.warnings)
    if out is not None:
        write_record(out, report)
    if html is not None:
        from autotune.report.page.page import page

        write_text(html, page(report, out))
    print_json(report) if json_output else print_report(report, console())


def plan(device_spec: Path, out: Path | None, html: Path | None, json_output: bool, **flags: Any) -> None:
    """Estimate throughput and memory on devices that are not here, and the best layout of a number of them."""
    from autotune.report.paper.plan import Flags, plan_report

    names = set(Flags._fields) - {"settings"}
    own = {name: flags.pop(name) for name in list(flags) if name in names}
    given = {name: value for name, value in flags.items() if value is not None}
    report = plan_report(Flags(device_spec=device_spec, settings=given, **own), typed())
    show_prediction(report, out, html, json_output)


def typed() -> str:
    """Return what the user typed, for the record."""
    return shlex.join(["autotune", *sys.argv[1:]])


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
    from autotune.report.paper.scale import Flags, plan_of, print_scale

    progress = console(stderr=True)
    plan = plan_of(path, Flags(**flags), lambda ranks, name: progress.print(f"p = {ranks}, {name}", highlight=False))
    if html is not None:
        from autotune.records.base import write_text
        from autotune.report.page.scale import scale_page

        write_text(html, scale_page(plan))
    print_json(plan) if json_output else print_scale(plan, console())


def ramp(path: Path, schedule: str | None, memory_limit: str | None, json_output: bool, **flags: Any) -> None:
    """Predict m in each phase of Megatron's batch ramp, and which micro-batch size serves all phases best."""
    from autotune.report.paper.ramp import IGNORED, Flags, plan_of, print_ramp, ramp_document

    plan = plan_of(path, Flags(**flags), schedule, memory_limit)
    if flags["rampup_batch_size"] is not None:
        print_notes([IGNORED])
    print_json(ramp_document(plan)) if json_output else print_ramp(plan, console())
