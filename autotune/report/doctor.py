"""The page of doctor: what is here, what would keep a run from working, and what to run next."""

from enum import StrEnum
from typing import Self

from rich.console import Console

from autotune.records.base import Record
from autotune.records.job.environment import Environment
from autotune.report.units import show_bytes


class Verdict(StrEnum):
    """The result of a check. A note is worth knowing and keeps nothing from working."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


SHOWN_BY_CHECKS = {"unseen_gpu", "gpu_memory_bytes", "mig", "compute_modes", "gpu_links"}
STYLES = {Verdict.OK: "green", Verdict.NOTE: "cyan", Verdict.PROBLEM: "yellow"}


class Check(Record):
    """One thing that a pipeline needs: its name, and what was found, with the remedy where it is a problem."""

    name: str
    verdict: Verdict
    found: str

    @classmethod
    def ok(cls, name: str, found: str) -> Self:
        return cls(name=name, verdict=Verdict.OK, found=found)

    @classmethod
    def note(cls, name: str, found: str) -> Self:
        return cls(name=name, verdict=Verdict.NOTE, found=found)

    @classmethod
    def problem(cls, name: str, found: str) -> Self:
        return cls(name=name, verdict=Verdict.PROBLEM, found=found)


class Checkup(Record):
    """The environment, every check, and the command to begin with; no problem among them: it should work."""

    environment: Environment
    checks: tuple[Check, ...]
    next_command: str | None

    @property
    def problems(self) -> tuple[Check, ...]:
        """The checks that would keep a run from working."""
        return tuple(check for check in self.checks if check.verdict is Verdict.PROBLEM)


def print_checkup(checkup: Checkup, console: Console) -> None:
    """Print one line per fact, one per check, and what to run."""

    def line(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    for name, value in checkup.environment.model_dump(exclude_defaults=True, exclude=SHOWN_BY_CHECKS).items():
        line(f"{name:17} {show_fact(name, value)}")
    line("")
    for check in checkup.checks:
        line(f"{check.verdict:8} {check.name}: {check.found}", STYLES[check.verdict])
    line("")
    if not checkup.problems:
        line("Nothing here would keep a run from working.")
    if checkup.next_command is not None:
        line(f"{'Run' if not checkup.problems else 'When that is mended, run'}: {checkup.next_command}")


def show_fact(name: str, value: object) -> str:
    """Show a field of the environment, with a list as its items and bytes in their unit."""
    if isinstance(value, tuple):
        return ", ".join(show_fact(name, item) for item in value)
    if name.endswith("memory_bytes") and isinstance(value, int):
        return show_bytes(value)
    return "-" if value is None else str(value)
