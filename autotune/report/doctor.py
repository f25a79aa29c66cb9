"""What is here, and what would keep a run from working."""

import os
import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from autotune.errors import AutotuneError
from autotune.pipeline.process import survey
from autotune.profile.record import Environment
from autotune.records import Record
from autotune.report.units import show_bytes

LEAST_FREE_BYTES = 100 * 2**20


class Findings(Record):
    """The environment, and each problem with its remedy; no problems: a run should work."""

    environment: Environment
    problems: tuple[str, ...]


def examine() -> Findings:
    """Looks at devices, torch, memory and the folders that a run writes to."""
    problems = []
    environment = Environment()
    try:
        environment = Environment.model_validate(survey())
    except AutotuneError as error:
        problems.append(str(error))
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        if not os.access(folder, os.W_OK):
            problems.append(f"cannot write to {folder}; change to another directory, or set TMPDIR")
        elif shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            problems.append(f"less than {show_bytes(LEAST_FREE_BYTES)} free in {folder}; make room")
    if environment.device == "cpu":
        cores = environment.cores or 1
        if cores < 2:
            problems.append("one core: ranks take turns on it, so pipelining cannot pay; figures hold for this host")
    return Findings(environment=environment, problems=tuple(problems))


def print_findings(findings: Findings, console: Console) -> None:
    """One line per fact, then the problems."""
    for name, value in findings.environment.model_dump().items():
        text = show_bytes(value) if name == "memory_bytes" and value else value
        text = ", ".join(text) if isinstance(text, tuple) else text
        console.print(f"{name:15} {'-' if text is None or text == '' else text}", highlight=False, soft_wrap=True)
    for problem in findings.problems:
        console.print(f"problem: {problem}", style="yellow", highlight=False, soft_wrap=True)
    if not findings.problems:
        console.print("Nothing here would keep a run from working.")
