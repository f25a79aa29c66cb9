"""What every chart has in common: a figure that leaves swipes and the wheel to the page, and a legend in HTML, which
takes its room from the page and not from the figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bokeh.models import WheelZoomTool
from bokeh.plotting import figure

from autotune.report.page.colours import INK_HEX, PICK


class Sign(StrEnum):
    """The sign before a word of a legend, as a character or as a drawn line."""

    BOX = "■"
    STAR = "★"
    HOLLOW_STAR = "☆"
    DASH = "━"
    LINE = "line"
    DASHED = "dashed"
    DOTTED = "dotted"
    CROSS = "✕"
    CIRCLE = "●"
    SQUARE = "◼"
    TRIANGLE = "▲"
    DIAMOND = "◆"
    INVERTED_TRIANGLE = "▼"
    HEX = "⬢"
    HOLLOW = "○"
    HOLLOW_SQUARE = "◻"
    HOLLOW_TRIANGLE = "△"
    HOLLOW_DIAMOND = "◇"
    HOLLOW_INVERTED_TRIANGLE = "▽"
    HOLLOW_HEX = "⬡"


MARKERS = {
    "circle": Sign.CIRCLE,
    "square": Sign.SQUARE,
    "triangle": Sign.TRIANGLE,
    "diamond": Sign.DIAMOND,
    "inverted_triangle": Sign.INVERTED_TRIANGLE,
    "hex": Sign.HEX,
}
"""Shapes of points, by which schedules are told apart, and their signs."""
HOLLOW = {
    "circle": Sign.HOLLOW,
    "square": Sign.HOLLOW_SQUARE,
    "triangle": Sign.HOLLOW_TRIANGLE,
    "diamond": Sign.HOLLOW_DIAMOND,
    "inverted_triangle": Sign.HOLLOW_INVERTED_TRIANGLE,
    "hex": Sign.HOLLOW_HEX,
}
"""The signs of points that are not filled, because nothing ran there."""


@dataclass(frozen=True)
class Key:
    """A word of a legend. ``colour``: as #rrggbb, or INK."""

    label: str
    colour: str
    sign: Sign = Sign.BOX

    @property
    def css(self) -> str:
        """The colour as the page's style has it."""
        return self.colour if self.colour.startswith("#") else f"var(--{self.colour})"


@dataclass
class Chart:
    """A figure and its legend. ``div``: the element that it is drawn into, once it is known."""

    figure: Any
    keys: Sequence[Key] = ()
    title: str = ""
    div: str = ""


def plain(height: int = 320, **more: Any) -> Any:
    """Return an empty figure as wide as the page, whose toolbar shows under the pointer alone. No tool is active: drags
    and the wheel are the page's own."""
    tools = more.pop("tools", "pan,box_zoom,reset,save")
    plot = figure(
        height=height,
        tools=tools,
        sizing_mode="stretch_width",
        toolbar_location="above",
        active_drag=None,
        active_scroll=None,
        **more,
    )
    # Filled, they would leave a line of white at two edges, which is seen in the dark.
    plot.background_fill_color = plot.border_fill_color = None
    plot.xaxis.minor_tick_line_color = plot.yaxis.minor_tick_line_color = None
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    return plot


def zoom_along_time(plot: Any) -> None:
    """Let Ctrl with the wheel, and two fingers, zoom a figure along x; the wheel alone and one finger stay the
    page's."""
    zoom = WheelZoomTool(dimensions="width", modifiers={"ctrl": True})
    plot.add_tools(zoom)
    plot.toolbar.active_scroll = zoom


def inked(renderer: Any) -> Any:
    """Return the renderer, to be drawn in the colour of the text."""
    renderer.tags = ["ink"]
    return renderer


def mark(plot: Any, x: Any, y: float, is_hollow: bool = False) -> None:
    """Mark the pick with a star at a point, or with a hollow one what it could be instead."""
    fill, line, width = (None, PICK, 2) if is_hollow else (PICK, INK_HEX, 0.5)
    plot.scatter([x], [y], marker="star", size=17, fill_color=fill, line_color=line, line_width=width)


def memory_unit(most: float) -> tuple[str, int]:
    """Return the unit in which an axis up to ``most`` bytes has plain numbers, and its bytes."""
    return ("GiB", 2**30) if most >= 2**28 else ("MiB", 2**20)
