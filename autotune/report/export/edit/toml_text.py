"""Where the keys of a TOML file lie: a small scanner, over text that Python's own parser has taken."""

import re
import tomllib
from typing import Any

from autotune.report.export.edit.spans import Entry, Shape, Table, line_end

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
NAME = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL)
BARE = re.compile(r"""[^,\]}#\r\n='\"]+""")
BRACKETS = {"[": "]", "{": "}"}


def read_toml(text: str) -> Table:
    """Return the tables of a TOML file; raise ValueError for what is none."""
    tomllib.loads(text)
    root = Table(Shape.SECTION, 0, len(text))
    at, place = skip(text, 0), root
    while at < len(text):
        if text[at] == "[":
            place, at = read_header(text, at, root)
        else:
            at = read_pair(text, at, place)
        at = skip(text, at)
    return root


def read_header(text: str, at: int, root: Table) -> tuple[Table, int]:
    """Return the table of a header line, and where the line's brackets end."""
    brackets = 2 if text.startswith("[[", at) else 1
    names, end = read_names(text, at + brackets)
    end += brackets
    *parents, last = names
    place = root
    for name in parents:
        place = section(place, name, at, end)
    table = Table(Shape.SECTION, line_end(text, end), len(text))
    if brackets == 2:  # one of several tables: a list, which is never changed
        place.entries.append(Entry(last, at, end, at, end, [], None, True))
        return table, end
    found = section(place, last, at, end)
    found.start = table.start
    return found, end


def section(place: Table, name: str, at: int, end: int) -> Table:
    """Return the table of a name in another table, made where it is not there."""
    entry = next((one for one in reversed(place.entries) if one.key == name), None)
    if entry is None or entry.table is None:
        entry = Entry(name, at, end, at, end, None, Table(Shape.SECTION, None, end), True)
        place.entries.append(entry)
    assert entry.table is not None
    return entry.table


def read_names(text: str, at: int) -> tuple[list[str], int]:
    """Return the parts of a key, and where it ends."""
    names: list[str] = []
    while True:
        found = NAME.match(text, at)
        assert found is not None, "tomllib took it"
        names.append(next(iter(tomllib.loads(f"{found[1]} = 0"))))
        at = found.end()
        if not text.startswith(".", at):
            return names, at
        at += 1


def read_pair(text: str, at: int, place: Table) -> int:
    """Add the entry that begins at an offset to its table, and return where its value ends."""
    names, sign = read_names(text, at)
    key_end = at + len(text[at:sign].rstrip())
    start = skip_line(text, sign + 1)
    *parents, last = names
    for name in parents:
        place = section(place, name, at, key_end)
    if text[start] == "{":
        table, end = read_inline(text, start)
        place.entries.append(Entry(last, at, key_end, start, end, None, table))
    else:
        end = value_end(text, start)
        value: Any = tomllib.loads(f"x = {text[start:end]}")["x"]
        place.entries.append(Entry(last, at, key_end, start, end, value))
    return end


def read_inline(text: str, at: int) -> tuple[Table, int]:
    """Return a table in braces, and where it ends."""
    table = Table(Shape.FLOW, at + 1, at + 1)
    end = skip(text, at + 1)
    while text[end] != "}":
        end = skip(text, read_pair(text, skip(text, end + 1) if text[end] == "," else end, table))
    table.end = end
    return table, end + 1


def value_end(text: str, at: int) -> int:
    """Return where a value ends that is no table."""
    if text[at] in "\"'":
        found = STRING.match(text, at)
    elif text[at] in BRACKETS:
        end = skip(text, at + 1)
        while text[end] != BRACKETS[text[at]]:
            end = end + 1 if text[end] in ",=" else value_end(text, end)
            end = skip(text, end)
        return end + 1
    else:
        found = BARE.match(text, at)
    assert found is not None, "tomllib took it"
    return found.start() + len(found[0].rstrip())


def skip(text: str, at: int) -> int:
    """Return where blanks and comments end."""
    found = BLANK.match(text, at)
    assert found is not None
    return found.end()


def skip_line(text: str, at: int) -> int:
    """Return where blanks end that lie within a line."""
    while at < len(text) and text[at] in " \t":
        at += 1
    return at
