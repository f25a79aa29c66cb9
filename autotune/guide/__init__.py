"""The manual: a Markdown page per topic, printed by ``autotune guide TOPIC`` and linked from the README."""

import sys
from importlib import resources
from typing import TYPE_CHECKING

from autotune.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

TOPICS = (
    "start",
    "model",
    "your-model",
    "candidates",
    "table",
    "choice",
    "profiles",
    "runs",
    "command",
    "timeline",
    "memory",
    "failures",
    "correctness",
    "launchers",
    "python",
    "ci",
    "environments",
    "replicas",
    "hosts",
    "studies",
    "replay",
    "plan",
    "scale",
    "method",
    "files",
    "trust",
    "questions",
    "limits",
    "glossary",
    "options",
    "schema",
    "exit-codes",
)
"""The pages in the order in which a user needs them; the last three are made from the code (``make guide``)."""


def page(topic: str) -> str:
    """Return the Markdown of a page; raise UsageError where there is none of that name."""
    if topic not in TOPICS:
        raise UsageError(f"the guide has no page {topic!r}; its pages are {', '.join(TOPICS)}")
    return (resources.files(__name__) / f"{topic}.md").read_text(encoding="utf-8")


def title(topic: str) -> str:
    """Return the heading of a page."""
    return page(topic).partition("\n")[0].removeprefix("# ")


def contents() -> str:
    """Return the list of pages, a line each."""
    width = max(map(len, TOPICS))
    lines = [f"{topic:{width}}  {title(topic)}" for topic in TOPICS]
    return "\n".join(["autotune guide TOPIC prints a page:", "", *lines, ""])


def print_page(topic: str | None, console: "Console") -> None:
    """Print a page, or the list of pages: drawn on a terminal, as plain Markdown elsewhere."""
    if topic is None or not console.is_terminal:
        sys.stdout.write(contents() if topic is None else page(topic))
        return
    from rich.markdown import Markdown

    console.print(Markdown(page(topic)))
