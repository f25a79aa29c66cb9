"""The result of ``check``, for people (terminal, Markdown) and for CI systems (JUnit XML)."""

import html
from collections.abc import Iterator
from math import log1p
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.errors import Regression
from autotune.report.check.judge import Check, Comparison
from autotune.report.units import show_bytes, show_share

HEADINGS = ("figure", "baseline", "new", "change", "98 of 100 cases", "verdict")
STYLES = {"regression": "bold red", "unclear": "yellow", "better": "green", "ok": ""}


def show_figure(value: float, unit: str) -> str:
    """Return a value with its unit."""
    texts = {"bytes": show_bytes(value), "share": show_share(value), "times": f"{value:.2f}x"}
    return texts.get(unit, f"{value:.1f} {unit}")


def cells(row: Comparison) -> tuple[str, ...]:
    """Return ``throughput  102.30 sequences/s  97.10 sequences/s  5.1% less  7.9% less to 2.1% less  regression``."""
    verdict = row.verdict if row.is_judged else "not judged"
    values = (show_figure(row.baseline, row.unit), show_figure(row.new, row.unit), change_text(row.change))
    return (row.name, *values, interval_text(row), verdict)


def shown(found: Check) -> list[Comparison]:
    """Return the rows for people: on one machine the ratios, which are not judged there, would say the change again."""
    return [row for row in found.comparisons if row.is_judged or found.differences]


def change_text(change: float) -> str:
    """Return ``31% less``, ``0.4% more`` or ``no change``."""
    if abs(change) < 0.0005:
        return "no change"
    return f"{show_share(abs(change), 1 if abs(change) < 0.1 else 0)} {'more' if change > 0 else 'less'}"


def interval_text(row: Comparison) -> str:
    """Return ``33% to 29% less``, ``1.2% less to 0.4% more``, or nothing where there is no interval."""
    low, high = change_text(row.change_low), change_text(row.change_high)
    if low == high:
        return ""
    if row.change_low * row.change_high > 0:
        low = low.removesuffix(" less").removesuffix(" more")
    return f"{low} to {high}"


def print_check(found: Check, console: Console) -> None:
    """Print the table and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("figure", "verdict") else "right", no_wrap=True)
    for row in shown(found):
        table.add_row(*cells(row), style=STYLES[row.verdict] if row.is_judged else "dim")
    console.print(table)
    for line in sentences(found):
        console.print(escape(line), soft_wrap=True, highlight=False)


def sentences(found: Check) -> Iterator[str]:
    """Yield sentences on what was compared, and the verdict; a regression itself is told by ``regressions``."""
    if found.differences:
        yield f"Another machine or other software, so only ratios are judged: {', '.join(found.differences)}."
    for row in found.comparisons:
        if row.is_judged and row.verdict == "unclear":
            yield sentence(row, found.max_regression)
    if found.missing:
        yield f"Not in both reports: {', '.join(found.missing)}."
    yield {
        "regression": "Regression.",
        "unclear": f"No regression is shown, nor is one of {show_share(found.max_regression)} excluded.",
        "better": "No regression; something has become better.",
        "ok": f"No regression of {show_share(found.max_regression)} or more.",
    }[found.verdict]


def regressions(found: Check) -> list[Comparison]:
    """Return the figures that have become worse, the one that changed most first."""
    worse = [row for row in found.comparisons if row.is_judged and row.verdict == "regression"]
    return sorted(worse, key=lambda row: -abs(log1p(row.change)))


def sentence(row: Comparison, max_regression: float) -> str:
    """Return what has changed, once, in one direction; and what to do where the noise hides what it means."""
    change = f"{row.name} {show_change(row)}: {change_text(row.change)}"
    allowed = show_share(max_regression)
    if row.verdict == "regression":
        return f"{change}; {allowed} is allowed"
    return (
        f"{change}, too noisy to tell a regression of {allowed} ({interval_text(row)} in 98 of 100 cases); run both"
        " again in turns on a quieter machine, and give all reports (--baseline may be repeated)."
    )


def show_change(row: Comparison) -> str:
    """Return ``819.7 -> 562.8 sequences/s``."""
    if row.unit == "sequences/s":
        return f"{row.baseline:.1f} -> {row.new:.1f} {row.unit}"
    return f"{show_figure(row.baseline, row.unit)} -> {show_figure(row.new, row.unit)}"


def raise_regression(found: Check) -> None:
    """Raise Regression where there is one, with all that became worse in its message, the worst first."""
    if worse := regressions(found):
        raise Regression("; ".join(sentence(row, found.max_regression) for row in worse))


def markdown(found: Check) -> str:
    """Return a section for a GitHub step summary or a merge request."""

    def line(parts: tuple[str, ...]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"

    said = [f"{sentence(row, found.max_regression)}." for row in regressions(found)]
    rows = [line(HEADINGS), line(("---",) * len(HEADINGS)), *(line(cells(row)) for row in shown(found))]
    return (
        "\n".join(
            [
                f"### autotune check: {found.verdict}",
                "",
                *rows,
                "",
                *(html.escape(text, quote=False) for text in (*said, *sentences(found))),
            ]
        )
        + "\n"
    )


def junit(found: Check) -> str:
    """Return a test suite with one test for each figure that is judged; what cannot be told is skipped."""
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
