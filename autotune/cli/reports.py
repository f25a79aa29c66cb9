"""The commands that read the report of a run: show, export and check."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.cli.output import console, print_json

if TYPE_CHECKING:
    from autotune.records.report import Report


def show(path: Path, explain: int | None, csv: bool, html: Path | None, json_output: bool) -> None:
    """Print the table of a report again, throughput and memory as bars, and why the winner won."""
    from autotune.records.rows import csv_text
    from autotune.report.bars import print_bars
    from autotune.report.load import read_report
    from autotune.report.table import print_report

    report = read_report(path)
    if html is not None:
        from autotune.records.base import write_text
        from autotune.report.page.page import page

        write_text(html, page(report, path))
    if explain is not None:
        from autotune.report.explain import explain as why_not

        sys.stdout.writelines(f"{line}\n" for line in why_not(report, explain))
    elif csv:
        sys.stdout.write(csv_text(report.rows()))
    elif json_output:
        print_json(report)
    else:
        print_report(report, console())
        print_bars(report, console())


def export(
    path: Path,
    to: str,
    data_parallel: int | None,
    target_version: str | None,
    candidate: int | None,
    merge: Path | None,
    out: Path | None,
    verify_environment: bool,
    python: str | None,
    quiet: bool,
) -> None:
    """Print the launcher's own flags or config file for the sweet spot of a report."""
    from autotune.records.base import write_text
    from autotune.report.export.export import export as settings_for
    from autotune.report.load import read_report

    report = read_report(path)
    if verify_environment:
        verify_here(python, report)
    made = settings_for(
        report, to, candidate=candidate, data_parallel=data_parallel, version=target_version, merge=merge
    )
    write_text(out, made.text) if out else sys.stdout.write(made.text)
    if not quiet:
        sys.stderr.writelines(f"autotune: {note}\n" for note in made.notes)


def check(
    paths: list[Path],
    baseline: list[Path],
    max_regression: str,
    verify_environment: bool,
    python: str | None,
    markdown_file: Path | None,
    junit_file: Path | None,
    json_output: bool,
) -> None:
    """Compare a report with a baseline; exit 6 where something has become worse."""
    from autotune.records.base import write_text
    from autotune.report.check.judge import check as compare
    from autotune.report.check.judge import parse_regression
    from autotune.report.check.show import junit, markdown, print_check, raise_regression
    from autotune.report.load import read_report

    allowed = parse_regression(max_regression)
    new = [read_report(path) for path in paths]
    if verify_environment:
        verify_here(python, *new)
    found = compare(new, [read_report(path) for path in baseline], allowed)
    for path, text in ((markdown_file, markdown(found)), (junit_file, junit(found))):
        if path is not None:
            write_text(path, text)
    try:
        print_json(found) if json_output else print_check(found, console())
    finally:  # the verdict is the exit code, whether or not somebody reads the table to its end
        raise_regression(found)


def verify_here(python: str | None, *reports: "Report") -> None:
    """Raise InputError where a report is not of this machine as it is now; loads torch in a process of its own."""
    from autotune.identity import verify_environment
    from autotune.pipeline.control.survey import collect_environment
    from autotune.records.job.environment import Environment

    verify_environment(Environment.model_validate(collect_environment(python or sys.executable)), *reports)
