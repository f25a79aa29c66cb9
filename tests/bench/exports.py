"""Exports into a folder of real config files: ``python -m tests.bench exports FOLDER``.

Every file is exported to every launcher that reads files with its suffix. What comes back is judged by other code than
wrote it: PyYAML, json and tomllib read the values, and the lines are compared one by one.
"""

import csv
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autotune.errors import InputError
from autotune.records.report import Report
from autotune.report.export.export import export
from autotune.report.export.targets import TARGETS
from tests.bench.exported import Change, found_in
from tests.report.export.reports import make_report

LIST = Path(__file__).parent / "real_configs.csv"
SUFFIXES = {".yaml", ".yml", ".json", ".toml"}
PLANS = {
    "1F1B": make_report((8, "1F1B")),
    "cut": make_report((8, "1F1B"), split=(13, 13, 12, 10)),
    "interleaved": make_report((8, "Interleaved1F1B"), virtual_stages=2),
}
"""What is exported: m = 8 of 8 sequences in four stages, cut evenly, cut otherwise, and with two stages per rank."""


class Known(NamedTuple):
    """A row of the list: whose file it is; ``taken_by`` the launcher of ``--to`` whose file it is, or nothing."""

    repository: str
    path: str
    commit: str
    blob: str
    kind: str
    taken_by: str


def known_files() -> dict[str, Known]:
    """The list, by the first digits of the hash that git has for a file's content."""
    with LIST.open(newline="") as rows:
        return {row["blob"]: Known(**row) for row in csv.DictReader(rows)}


def blob_of(content: bytes) -> str:
    """The first digits of git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()[:12]


def check(folder: Path) -> tuple[Counter[str], list[str]]:
    """Counts, and every violation in words."""
    listed, counts, wrong = known_files(), Counter[str](), list[str]()
    for path in sorted(one for one in folder.rglob("*") if one.suffix in SUFFIXES and one.is_file()):
        known = listed.get(blob_of(path.read_bytes()))
        counts["files"] += 1
        counts["files in the list"] += known is not None
        for to, plan, kind, words in outcomes(path, known):
            counts[f"{kind} ({to})" if kind in ("exported", "refused by name") else kind] += 1
            if words:
                wrong.append(f"{path.relative_to(folder)} to {to}, {plan}: {kind}: {words}")
    return counts, wrong


def outcomes(path: Path, known: Known | None) -> Iterator[tuple[str, str, str, str]]:
    """The launcher, the plan, what became of the file, and what is wrong with that."""
    for to, target in TARGETS.items():
        if path.suffix not in target.files:
            continue
        is_foreign = known is not None and known.taken_by != to
        for plan, report in PLANS.items():
            if target.refusal(plan_at(report)) is not None:
                continue
            made, reason = attempt(report, to, path)
            if made is None and "\n" in reason:
                yield to, plan, "more than one line", reason
            elif made is None:
                yield to, plan, "foreign, refused" if is_foreign else "refused by name", ""
            elif is_foreign:
                yield to, plan, "foreign, exported", f"it is of {known.kind if known else 'another'}"
            else:
                yield to, plan, "exported", ""
                yield from ((to, plan, kind, words) for kind, words in found_in(made, to, plan))


def plan_at(report: Report):
    """The plan of a report's sweet spot."""
    from autotune.report.export.plan import plan_of

    assert report.sweet_spot is not None
    return plan_of(report, report.sweet_spot.candidate, 1)


def attempt(report: Report, to: str, path: Path) -> tuple[Change | None, str]:
    """What an export made of a file, or why it was refused."""
    try:
        made = export(report, to, merge=path, version="0.2" if to == "torchtitan" else None)
    except InputError as error:
        return None, str(error)
    return Change(path.suffix, path.read_bytes().decode(), made.text, made.notes), ""


def main(arguments: list[str]) -> None:
    """Print the counts and every violation; exit 1 where there is one."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.exit("python -m tests.bench exports FOLDER: a folder of config files")
    counts, wrong = check(Path(arguments[0]))
    for name, count in sorted(counts.items()):
        print(f"{count:6}  {name}")
    print(*wrong, f"{len(wrong)} violations", sep="\n")
    sys.exit(1 if wrong else 0)
