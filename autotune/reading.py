"""The commands that read what a run has written: show it, hand it to a launcher, plan with it, compare it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.flags import Flag, Json, MemoryLimit, ScheduleFlag, VerifyEnvironment, VirtualStages

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()  # autotune.cli takes its commands over


def console(stderr: bool = False) -> "Console":
    """stdout carries the result, stderr the progress; a pipe is given room instead of 80 columns."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(stderr=stderr, width=width)


def print_json(record: Any) -> None:
    """Writes one record, or plain JSON values, to stdout."""
    document = record if isinstance(record, dict) else record.model_dump(mode="json", by_alias=True)
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


@app.command(epilog="Example: autotune show report.json")
def show(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="A report.json of an earlier run.")],
    explain: Annotated[int | None, Flag(metavar="M", help="Say why M micro-batches did not win.")] = None,
    html: Annotated[Path | None, Flag(help="Write it to this file too, as a page with plots.")] = None,
    json_output: Json = False,
) -> None:
    """Print the table of a report again, throughput and memory as bars, and why the winner won."""
    from autotune.report.bars import print_bars
    from autotune.report.record import read_report
    from autotune.report.table import print_report

    report = read_report(path)
    if html is not None:
        from autotune.records import write_text
        from autotune.report.page.page import page

        write_text(html, page(report))
    if explain is not None:
        from autotune.report.explain import explain as why_not

        sys.stdout.writelines(f"{line}\n" for line in why_not(report, explain))
    elif json_output:
        print_json(report)
    else:
        print_report(report, console())
        print_bars(report, console())


@app.command(name="export", epilog="Example: autotune export report.json --to megatron-lm --data-parallel 8")
def export_command(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="A report.json of an earlier run.")],
    to: Annotated[
        str,
        Flag(
            help="megatron-lm, megatron-bridge, nemo, deepspeed, torchtitan, nanotron, accelerate, colossalai, torch,"
            " shell or key-value."
        ),
    ],
    data_parallel: Annotated[int, Flag(min=1, help="Replicas of the pipeline; they multiply the batch.")] = 1,
    target_version: Annotated[str | None, Flag(help="The launcher's version, such as 0.3 or main.")] = None,
    candidate: Annotated[
        int | None, Flag(help="Another candidate than the sweet spot, by its index in the report.")
    ] = None,
    merge: Annotated[
        Path | None, Flag(help="A config file of the launcher; print it with only these keys changed.")
    ] = None,
    out: Annotated[Path | None, Flag(help="Write to this file, which may be the one merged [default: stdout].")] = None,
    verify: VerifyEnvironment = False,
    quiet: Annotated[bool, Flag("--quiet", help="No notes on stderr.")] = False,
) -> None:
    """Print the launcher's own flags or config file for the sweet spot of a report."""
    from autotune.records import write_text
    from autotune.report.export.export import export
    from autotune.report.fingerprint import verify_environment
    from autotune.report.record import read_report

    report = read_report(path)
    if verify:
        verify_environment(report)
    made = export(report, to, candidate=candidate, data_parallel=data_parallel, version=target_version, merge=merge)
    write_text(out, made.text) if out else sys.stdout.write(made.text)
    if not quiet:
        sys.stderr.writelines(f"autotune: {note}\n" for note in made.notes)


@app.command(epilog="Example: autotune ramp report.json --rampup-batch-size 16 16 300000 --train-samples 5000000")
def ramp(
    path: Annotated[Path, typer.Argument(metavar="PROFILE|REPORT", help="Where stage times come from.")],
    rampup_batch_size: Annotated[
        tuple[int, int, int], Flag(metavar="START STEP SAMPLES", help="First batch, its steps, samples of the ramp.")
    ],
    train_samples: Annotated[int, Flag(help="Samples of the whole training.")],
    global_batch_size: Annotated[int | None, Flag(help="The full batch [default: the profile's x replicas].")] = None,
    data_parallel: Annotated[int, Flag(help="Replicas of the pipeline; they share each batch.")] = 1,
    schedule: Annotated[str | None, Flag(help="1F1B, GPipe, Interleaved1F1B ... [default: 1F1B].")] = None,
    memory_limit: MemoryLimit = None,
    json_output: Json = False,
) -> None:
    """Predict m in each phase of Megatron's batch ramp, and which micro-batch size serves all phases best."""
    from autotune.predict.ramp import Ramp
    from autotune.report.ramp import plan_of, print_ramp, ramp_document

    asked = Ramp(*rampup_batch_size, global_batch_size or 0, train_samples, data_parallel)
    plan = plan_of(path, asked, schedule, memory_limit)
    print_json(ramp_document(plan)) if json_output else print_ramp(plan, console())


@app.command(epilog="Example: autotune scale profile.json --stages 64,256,1024 --network dgx-h100 --html scale.html")
def scale(
    path: Annotated[Path, typer.Argument(metavar="PROFILE|REPORT", help="A profile of one host, of 3 stages or more.")],
    network: Annotated[Path, Flag(help="TOML file that describes hosts and links, or one that ships: dgx-h100.")],
    stages: Annotated[str, Flag(help="Numbers of ranks, with commas.")] = "64,128,256,512,1024",
    layers: Annotated[int | None, Flag(help="Of the model [default: as many on a rank as in the profile].")] = None,
    batch: Annotated[
        int | None, Flag(help="Sequences per step [default: as many for a rank as in the profile].")
    ] = None,
    micro_batches: Annotated[
        str | None, Flag(help="Candidates, such as 256,512 [default: powers of two times the ranks, and refined].")
    ] = None,
    schedule: ScheduleFlag = None,
    virtual_stages: VirtualStages = None,
    memory_limit: MemoryLimit = None,
    html: Annotated[Path | None, Flag(help="Write it to this file too, as a page with plots.")] = None,
    json_output: Json = False,
) -> None:
    """Predict pipelines of hundreds of ranks over a described network, and say how far to trust that."""
    flags = {name: value for name, value in locals().items() if name not in ("path", "html", "json_output")}
    from autotune.report.scale import Flags, plan_of, print_scale

    progress = console(stderr=True)
    plan = plan_of(path, Flags(**flags), lambda ranks, name: progress.print(f"p = {ranks}, {name}", highlight=False))
    if html is not None:
        from autotune.records import write_text
        from autotune.report.page.scale import scale_page

        write_text(html, scale_page(plan))
    print_json(plan) if json_output else print_scale(plan, console())


@app.command(epilog="Example: autotune check report.json --baseline baseline.json --max-regression 3%")
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="REPORT...", help="The new report, or several of one kind.")],
    baseline: Annotated[list[Path], Flag(help="The report to compare with; may be repeated.")],
    max_regression: Annotated[str, Flag(help="How much worse a figure may be.")] = "3%",
    verify: VerifyEnvironment = False,
    markdown_file: Annotated[Path | None, Flag("--markdown", help="Write the table here too, as Markdown.")] = None,
    junit_file: Annotated[Path | None, Flag("--junit", help="Write the verdicts here too, as JUnit XML.")] = None,
    json_output: Json = False,
) -> None:
    """Compare a report with a baseline; exit 6 where something has become worse."""
    from autotune.records import write_text
    from autotune.report.check.judge import check, parse_regression
    from autotune.report.check.show import junit, markdown, print_check, say_regression
    from autotune.report.fingerprint import verify_environment
    from autotune.report.record import read_report

    allowed = parse_regression(max_regression)
    new = [read_report(path) for path in paths]
    if verify:
        verify_environment(*new)
    found = check(new, [read_report(path) for path in baseline], allowed)
    for path, text in ((markdown_file, markdown(found)), (junit_file, junit(found))):
        if path is not None:
            write_text(path, text)
    print_json(found) if json_output else print_check(found, console())
    say_regression(found)
