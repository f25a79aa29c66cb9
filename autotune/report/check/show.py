"""What ``check`` found, for people (terminal, Markdown) and for CI systems (JUnit XML)."""

import html
from collections.abc import Iterator
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.errors import Regression
from autotune.report.check.judge import Check, Comparison
from autotune.report.units import show_bytes

HEADINGS = ("figure", "baseline", "new", "change", "worse by", "verdict")
STYLES = {"regression": "bold red", "unclear": "yellow", "better": "green", "ok": ""}


def show_figure(value: float, unit: str) -> str:
    """A value with its unit."""
    shown = {"bytes": show_bytes(value), "share": f"{value:.1%}", "times": f"{value:.2f}x"}
    return shown.get(unit, f"{value:.2f} {unit}")


def cells(row: Comparison) -> tuple[str, ...]:
    """``throughput  102.30 sequences/s  97.10 sequences/s  -5.1%  +2.1% to +8.6%  regression``."""
    between = f"{row.worse_by_low:+.1%} to {row.worse_by_high:+.1%}"
    verdict = row.verdict if row.is_judged else "not judged"
    values = (show_figure(row.baseline, row.unit), show_figure(row.new, row.unit), f"{row.change:+.1%}")
    return (row.name, *values, between, verdict)


def print_check(found: Check, console: Console) -> None:
    """The table and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("figure", "verdict") else "right", no_wrap=True)
    for row in found.comparisons:
        table.add_row(*cells(row), style=STYLES[row.verdict] if row.is_judged else "dim")
    console.print(table)
    for line in sentences(found):
        console.print(escape(line), soft_wrap=True, highlight=False)


def sentences(found: Check) -> Iterator[str]:
    """What was compared, and the verdict in words."""
    if found.differences:
        yield f"Another machine or other software, so only ratios are judged: {', '.join(found.differences)}."
    for row in found.comparisons:
        if row.is_judged and row.verdict in ("regression", "unclear"):
            yield sentence(row, found.max_regression)
    if found.missing:
        yield f"Not in both reports: {', '.join(found.missing)}."
    yield {
        "regression": "Regression.",
        "unclear": f"No regression is shown, nor is one of {found.max_regression:.1%} excluded.",
        "better": "No regression; something has become better.",
        "ok": f"No regression of {found.max_regression:.1%} or more.",
    }[found.verdict]


def sentence(row: Comparison, max_regression: float) -> str:
    """What is wrong with one figure, and what to do."""
    between = f"{row.worse_by_low:+.1%} to {row.worse_by_high:+.1%}"
    if row.verdict == "regression":
        return f"{row.name} is worse by {row.worse_by:.1%} ({between}); {max_regression:.1%} is allowed."
    return (
        f"{row.name} is too noisy to tell: worse by {between}. {row.runs_needed} runs of each side would do:"
        " autotune check takes several reports, and --baseline may be repeated."
    )


def say_regression(found: Check) -> None:
    """Raises Regression where there is one, with the worst of them in its message."""
    worse = [row for row in found.comparisons if row.is_judged and row.verdict == "regression"]
    if worse:
        raise Regression(sentence(max(worse, key=lambda row: row.worse_by), found.max_regression))


def markdown(found: Check) -> str:
    """A section for a GitHub step summary or a merge request."""

    def line(parts: tuple[str, ...]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"

    rows = [line(HEADINGS), line(("---",) * len(HEADINGS)), *(line(cells(row)) for row in found.comparisons)]
    return (
        "\n".join(
            [
                f"### autotune check: {found.verdict}",
                "",
                *rows,
                "",
                *(html.escape(text, quote=False) for text in sentences(found)),
            ]
        )
        + "\n"
    )


def junit(found: Check) -> str:
    """A test suite with one test for each figure that is judged; what cannot be told is skipped."""
    judged = [row for row in found.comparisons if row.is_judged]
    counts = {kind: sum(row.verdict == kind for row in judged) for kind in ("regression", "unclear")}
    suite = ElementTree.Element(
        "testsuite",
        name="autotune check",
        tests=str(len(judged)),
        failures=str(counts["regression"]),
        skipped=str(counts["unclear"]),
        errors="0",
    )
    for row in judged:
        case = ElementTree.SubElement(suite, "testcase", classname="autotune.check", name=row.name)
        kind = {"regression": "failure", "unclear": "skipped"}.get(row.verdict)
        if kind is not None:
            ElementTree.SubElement(case, kind, message=sentence(row, found.max_regression))
        ElementTree.SubElement(case, "system-out").text = ", ".join(
            f"{heading}: {cell}" for heading, cell in zip(HEADINGS, cells(row), strict=True)
        )
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
