"""Where the keys of a config file lie in its text, whatever its language.

::

    model:                        Table(BLOCK)
      hidden: 1024  # wide        Entry "hidden": start, key_end, value_start, value_end, all before the comment
      {"a": 1, "b": 2}            Table(FLOW): start after the opening brace, end before the closing one
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

MERGED = "<<"
"""YAML's key for a mapping whose keys count as if they stood here."""


class Shape(Enum):
    """How the keys of a table are written."""

    BLOCK = auto()  # YAML: a key a line, deeper ones indented
    FLOW = auto()  # JSON, and YAML in braces
    SECTION = auto()  # TOML: a key a line, under a header


@dataclass
class Table:
    """A table of keys. ``start`` and ``end`` of what is inside: of a section ``start`` is where its header line ends,
    and None where it has no header of its own."""

    shape: Shape
    start: int | None
    end: int
    entries: "list[Entry]" = field(default_factory=list)

    @property
    def own(self) -> "list[Entry]":
        """The entries that are written between ``start`` and ``end``, not under a header of their own."""
        return [entry for entry in self.entries if not entry.is_header]

    def get(self, key: str) -> "Entry | None":
        """Return the entry of a key; None where there is none."""
        return next((entry for entry in self.entries if entry.key == key), None)


@dataclass
class Entry:
    """A key and its value: offsets into the text. ``table``: the value, where it is a table of keys. ``is_header``: a
    section of TOML, whose key stands in brackets."""

    key: str
    start: int
    key_end: int
    value_start: int
    value_end: int
    value: Any = None
    table: Table | None = None
    is_header: bool = False


def plain(table: Table) -> dict[str, Any]:
    """Return the values alone, with those of YAML's merged mappings where they count."""
    own = {entry.key: plain(entry.table) if entry.table else entry.value for entry in table.entries}
    merged = own.pop(MERGED, None)
    several = merged if isinstance(merged, list) else [merged]
    for one in several:
        own = (one | own) if isinstance(one, dict) else own
    return own


def refuse_twice(text: str, entries: Sequence[Entry]) -> None:
    """Raise ValueError for a key that is there twice, with the line of the second."""
    seen: set[str] = set()
    for entry in entries:
        if entry.key in seen:
            line = line_of(text, entry.start)
            raise ValueError(f"line {line}: the key {entry.key!r} is there already; remove one of the two")
        seen.add(entry.key)


def line_of(text: str, at: int) -> int:
    """Return the number of the line of an offset, from 1."""
    return text.count("\n", 0, at) + 1


def line_start(text: str, at: int) -> int:
    """Return where the line of an offset begins."""
    return text.rfind("\n", 0, at) + 1


def line_end(text: str, at: int) -> int:
    """Return where the line of an offset ends, before its line break."""
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if end > at and text[end - 1] == "\r" else end


def break_of(text: str) -> str:
    """Return the line break that the file has."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"
