"""Where the keys of a JSON file lie."""

import json
import re

from autotune.report.export.edit.spans import Entry, Shape, Table, refuse_twice

BLANKS = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


def read_json(text: str) -> Table:
    """Return the object of a JSON file; raise ValueError for what is none, or has a key twice."""
    if not isinstance(json.loads(text), dict):
        raise ValueError("its outermost value is no object")
    return read_object(text, skip(text, 0))[0]


def read_object(text: str, at: int) -> tuple[Table, int]:
    """Return the object whose brace is at an offset, and where it ends. The text is valid JSON already."""
    entries: list[Entry] = []
    start = at + 1
    end = skip(text, start)
    while text[end] != "}":
        if text[end] == ",":
            end = skip(text, end + 1)
        entries.append(read_entry(text, end))
        end = skip(text, entries[-1].value_end)
    refuse_twice(text, entries)
    return Table(Shape.FLOW, start, end, entries), end + 1


def read_entry(text: str, start: int) -> Entry:
    """Return the entry whose key begins at an offset."""
    key, key_end = DECODER.raw_decode(text, start)
    at = skip(text, skip(text, key_end) + 1)
    if text[at] == "{":
        table, end = read_object(text, at)
        return Entry(key, start, key_end, at, end, None, table)
    value, end = DECODER.raw_decode(text, at)
    return Entry(key, start, key_end, at, end, value)


def skip(text: str, at: int) -> int:
    """Return where the next token begins."""
    found = BLANKS.match(text, at)
    assert found is not None
    return found.end()
