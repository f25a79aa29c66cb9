"""A report as one HTML file: the answer, the table, the charts with their numbers, and where the figures come from."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, select_autoescape

from autotune.records.report import Report
from autotune.report.answer import conclusion, doubt_lines, finding_lines, headline
from autotune.report.export.targets import TARGETS
from autotune.report.hosts import host_lines
from autotune.report.page.chart import Chart
from autotune.report.page.sections import Section, naive_lines, sections_of, table_section
from autotune.report.page.tiles import Tile, tiles
from autotune.report.paper.predicted_cells import origin


@dataclass
class Page:
    """What stands on a page, from the top: title, tiles, the answer in a sentence with ``remarks``, ``cautions`` that
    must be known before it is used, the table, a command that hands the answer on (``export``, up to the name of the
    launcher), the sections, below the first of them ``notes`` and ``warnings``, the facts."""

    title: str
    answer: str
    table: Section
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]]
    tiles: Sequence[Tile] = ()
    remarks: Sequence[str] = ()
    cautions: Sequence[str] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    export: str = ""
    launchers: Sequence[str] = field(default_factory=tuple)


def page(report: Report, source: Path | None = None) -> str:
    """Return the whole file of a report. ``source``: where the report itself lies, for the command that exports it."""
    title = f"{headline(report)}, predicted: {origin(report)}" if report.is_predicted else headline(report)
    answer, *notes = conclusion(report).splitlines()
    cautions = [*doubt_lines(report), *finding_lines(report)]
    has_export = source is not None and report.sweet_spot is not None
    return rendered(
        Page(
            title=title,
            tiles=tiles(report),
            answer=answer,
            remarks=naive_lines(report),
            cautions=cautions,
            table=table_section(report),
            notes=[line for line in notes if line and line not in cautions],
            warnings=report.warnings,
            sections=sections_of(report),
            facts=facts(report),
            export=f"autotune export {shlex.quote(str(source))} --to" if has_export else "",
            launchers=tuple(TARGETS),
        )
    )


def rendered(shown: Page) -> str:
    """Return a whole file; it needs no network."""
    sections = [one for one in shown.sections if one.charts or one.rows]
    charts = [chart for section in (shown.table, *sections) for chart in section.charts]
    script = embedded(charts) if charts else ""
    folder = resources.files("autotune.report.page")
    engine = Environment(autoescape=select_autoescape(default=True, default_for_string=True))
    return engine.from_string((folder / "page.html").read_text(encoding="utf-8")).render(
        page=shown,
        sections=sections,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        behaviour=(folder / "page.js").read_text(encoding="utf-8"),
        library=Resources(mode="inline", components=["bokeh"], minified=True).render_js() if charts else "",
        script=script,
    )


def embedded(charts: Sequence[Chart]) -> str:
    """Return Bokeh's script that draws all charts, each of which is told the element that it draws into."""
    document = Document()
    with document.models.freeze():  # else all that are in it are walked through again with each that comes
        for chart in charts:
            document.add_root(chart.figure)
    script, divs = components([chart.figure for chart in charts])
    for chart, div in zip(charts, divs, strict=True):
        chart.div = div
    return str(script)


def facts(report: Report) -> list[tuple[str, str]]:
    """Return where the figures come from."""
    pairs = {"command": report.command, "made": report.created, "autotune": report.autotune_version}
    pairs |= report.environment.model_dump() | asdict(report.workload)
    return fact_rows(pairs | {"hosts": " ".join(host_lines(report.profile))})


def fact_rows(pairs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of them, as text."""
    shown = {
        name.replace("_", " "): ", ".join(map(str, v)) if isinstance(v, tuple | list) else v
        for name, v in pairs.items()
    }
    return [(name, str(value)) for name, value in shown.items() if value not in (None, "")]
