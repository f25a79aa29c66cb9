"""What if, as one HTML file: a picture of the m that wins where, and the table behind it."""

from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, LogColorMapper
from bokeh.palettes import Blues256

from autotune import __version__
from autotune.plan.whatif import WhatIf
from autotune.report.page.chart import Chart, inked, plain
from autotune.report.page.colours import INK_HEX
from autotune.report.page.page import Page, rendered
from autotune.report.page.sections import Section
from autotune.report.paper.whatif import TITLES, shown, varied, what_if_rows

PALE = Blues256[:100:-1]
"""From nearly white to a blue on which dark numbers can be read."""


def what_if_page(found: WhatIf) -> str:
    """Return the whole file; needs no network."""
    headings, rows = what_if_rows(found)
    names = " and ".join(TITLES[name] for name in varied(found))
    drawn = picture(found)
    section = Section(
        "The m that wins",
        "Of the micro-batch sizes that were timed, the best that fits in memory, in each case.",
        [Chart(drawn)] if drawn else [],
    )
    return rendered(
        Page(
            title=f"What if: the best m over {names}",
            answer="Everything is predicted, nothing was run.",
            table=Section("Cases", "", headers=headings, rows=rows),
            sections=[section],
            facts=[("autotune", __version__)],
        )
    )


def picture(found: WhatIf) -> Any | None:
    """Return the best m over one circumstance as a line, over two as coloured cells; None where nothing fits."""
    names, known = varied(found), [one for one in found.answers if one.micro_batches]
    if not known or not 1 <= len(names) <= 2:
        return None
    data: dict[str, list[Any]] = {name: [shown(name, getattr(one.case, name)) for one in known] for name in names}
    data |= {"m": [one.micro_batches for one in known], "rate": [one.throughput_seq_s for one in known]}
    data["words"] = [str(one.micro_batches) for one in known]
    source = ColumnDataSource(data)
    tips = [*((TITLES[name], f"@{name}") for name in names), ("m", "@m"), ("sequences/s", "@rate{0.00}")]
    axes = [list(dict.fromkeys(shown(name, getattr(one.case, name)) for one in found.answers)) for name in names]
    if len(names) == 1:
        plot = plain(x_range=axes[0], x_axis_label=TITLES[names[0]], y_axis_label="best m", y_axis_type="log")
        inked(plot.line(names[0], "m", source=source, color=INK_HEX, line_width=2))
        marks = inked(plot.scatter(names[0], "m", source=source, color=INK_HEX, size=9))
    else:
        labels: dict[str, Any] = {"x_axis_label": TITLES[names[1]], "y_axis_label": TITLES[names[0]]}
        plot = plain(x_range=axes[1], y_range=axes[0], **labels)
        low, high = min(data["m"]), max(data["m"])
        colours = LogColorMapper(palette=PALE, low=low, high=max(high, low + 1))
        fill = {"field": "m", "transform": colours}
        marks = plot.rect(names[1], names[0], 1, 1, source=source, fill_color=fill, line_color="white")
        style = {"text_align": "center", "text_baseline": "middle", "text_color": INK_HEX, "text_font_style": "bold"}
        plot.text(names[1], names[0], "words", source=source, **style)
    plot.add_tools(HoverTool(renderers=[marks], tooltips=tips))
    return plot
