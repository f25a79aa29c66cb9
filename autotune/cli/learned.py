"""The commands that learn from runs made elsewhere: fit and tell."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.cli.output import print_notes
from autotune.cli.paper import show_prediction, typed

if TYPE_CHECKING:
    from autotune.records.report import Report


def fit(
    paths: list[Path], read: str, out: Path, html: Path | None, json_output: bool, quiet: bool, **flags: Any
) -> None:
    """Learn the step time over m from logs or a table of real runs: the curve, the best m, what to try next."""
    from autotune.tuning.learned import Asked, learned_report

    out = out or Path("fit.json")
    report = learned_report(paths, read, Asked(**flags), typed())
    write_profile(out, report)
    show_learned(report, out, html, json_output, quiet)


def tell(path: Path, out: Path | None, html: Path | None, json_output: bool, quiet: bool, **run: Any) -> None:
    """Add a real step that was made elsewhere to a report, and predict again."""
    from autotune.report.load import read_report
    from autotune.tuning.learned import Told, told_report

    before = read_report(path)
    report = told_report(before, Told(**run), typed())
    if report.profile != before.profile:
        write_profile(out or path, report)
    show_learned(report, out or path, html, json_output, quiet)


def show_learned(report: "Report", out: Path, html: Path | None, json_output: bool, quiet: bool) -> None:
    """Print a report of what was learned, its notes unless ``quiet``, and write it."""
    show_prediction(report.model_copy(update={"warnings": ()}) if quiet else report, None, html, json_output)
    from autotune.records.base import write_record

    write_record(out, report)
    if not quiet:
        beside = f", its profile {profile_beside(out)}" if profile_beside(out).exists() else ""
        print_notes([f"the report is {out}{beside}"])


def write_profile(out: Path, report: "Report") -> None:
    """Write the profile beside the report."""
    from autotune.records.base import write_record

    write_record(profile_beside(out), report.profile)


def profile_beside(out: Path) -> Path:
    """Return ``fit-profile.json`` for ``fit.json``."""
    return out.with_name(f"{out.stem}-profile.json")
