"""Keys set and removed in a file's text, one by one: nothing else in it changes."""

import json
import re
from typing import Any

from autotune.report.export.edit.document import Document, KeyPath, Language
from autotune.report.export.edit.spans import Entry, Shape, Table, line_end, line_start
from autotune.report.export.edit.write import block, column, key_text, section, shown, sign_of, step_of

COMMENT = re.compile(r"#[^\r\n]*")
TEXT_OR_COMMENT = re.compile(r"""(?<!\w)(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*')|#[^\r\n]*""")


def same(one: Any, other: Any) -> bool:
    """Return True for equal values of one type: true is not 1."""
    return type(one) is type(other) and bool(one == other)


def set_value(doc: Document, path: KeyPath, value: Any, beside: str | None = None) -> str:
    """Return the text with the key at ``path`` set. ``beside``: a key of ours, near which a new one may be put.

    Raises ValueError where a parent is a single value.
    """
    place = doc.root
    for depth, name in enumerate(path):
        entry, rest = place.get(name), path[depth + 1 :]
        if entry is None:
            return add(doc, place, path[:depth], name, nested(rest, value), beside)
        if not rest:
            is_there = entry.table is None and same(entry.value, value) and entry.value_end > entry.value_start
            return doc.text if is_there else replace(doc, entry, path, value)
        if entry.table is None:
            if entry.value is not None:
                at = ".".join(path[: depth + 1])
                raise ValueError(f"{at} is no table of keys, so {'.'.join(path)} cannot be set in it")
            if place.shape is Shape.BLOCK and entry.value_end == entry.value_start:
                return add_under(doc, entry, nested(rest, value))
            return replace(doc, entry, path[: depth + 1], nested(rest, value))
        place = entry.table
    raise AssertionError("a path has at least one key")


def nested(names: KeyPath, value: Any) -> Any:
    """Return the value in as many tables as there are names."""
    for name in reversed(names):
        value = {name: value}
    return value


def replace(doc: Document, entry: Entry, path: KeyPath, value: Any) -> str:
    """Return the text with another value of a key that is there."""
    text, old = doc.text, doc.text[entry.value_start : entry.value_end]
    if "\n" in old:  # comments between its parts stay, and so do the lines around it
        left = doc.with_text(remove(doc, path))
        return set_value(left, path, value)
    new = shown(value, old, is_yaml=doc.language is Language.YAML)
    if not old:  # YAML's "key:" with nothing behind it
        colon = text.index(":", entry.key_end) + 1
        return f"{text[:colon]} {new}{text[colon:]}"
    return text[: entry.value_start] + new + text[entry.value_end :]


def add(doc: Document, place: Table, parents: KeyPath, key: str, value: Any, beside: str | None) -> str:
    """Return the text with a new key at the end of a table; between braces over several lines after the one ``beside``,
    because the last line there would need a comma."""
    is_open = place.shape is Shape.FLOW and "\n" in doc.text[place.start or 0 : place.end]
    after = place.get(beside) if beside and is_open else None
    if after is None:
        after = place.own[-1] if place.own else None
    if place.shape is Shape.SECTION:
        return add_to_section(doc, place, after, parents, key, value)
    return (add_line if place.shape is Shape.BLOCK else add_in_braces)(doc, place, after, key, value)


def add_line(doc: Document, place: Table, after: Entry | None, key: str, value: Any) -> str:
    """Return the YAML with a new key on a line of its own."""
    text, newline = doc.text, doc.newline
    indent = " " * column(text, after) if after else ""
    lines = block({key: value}, indent, step_of(text, doc.root), newline)
    if after is None:
        return f"{text}{newline if text and not text.endswith(newline) else ''}{lines}{newline}"
    at = line_end(text, after.value_end)
    return f"{text[:at]}{newline}{lines}{text[at:]}"


def add_under(doc: Document, entry: Entry, values: dict[str, Any]) -> str:
    """Return the YAML with keys under one that has no value yet."""
    step = step_of(doc.text, doc.root)
    at = line_end(doc.text, entry.key_end)
    return (
        doc.text[:at]
        + doc.newline
        + block(values, " " * column(doc.text, entry) + step, step, doc.newline)
        + doc.text[at:]
    )


def add_to_section(doc: Document, place: Table, after: Entry | None, parents: KeyPath, key: str, value: Any) -> str:
    """Return the TOML with a new key under its header; with a new header at the end where there is none."""
    text = doc.text
    if isinstance(value, dict):
        names = [*parents, key]
        while isinstance(inner := next(iter(value.values())), dict):
            names, value = [*names, next(iter(value))], inner
        return text + section(".".join(names), value, text)
    if place.start is None:
        return text + section(".".join(parents), {key: value}, text)
    at = line_end(text, after.value_end) if after else place.start
    indent = text[line_start(text, after.start) : after.start] if after else ""
    return f"{text[:at]}{doc.newline}{indent}{key}{sign_of(text, place, ' = ')}{shown(value)}{text[at:]}"


def add_in_braces(doc: Document, place: Table, after: Entry | None, key: str, value: Any) -> str:
    """Return the text with a new key between braces: on a line of its own where the others have one."""
    text = doc.text
    name = key_text(key, text[after.start] if after else "", is_json=doc.language is Language.JSON)
    pair = name + sign_of(text, place, " = " if doc.language is Language.TOML else ": ")
    if after is None:
        return add_first(doc, place, pair + shown(value))
    end = line_end(text, after.value_end)
    indent = text[line_start(text, after.start) : after.start]
    comma = comma_after(text, after, place)
    behind = text[after.value_end : end]
    if indent.strip() or not re.fullmatch(r"\s*,?\s*(#.*)?", behind) or (comma is not None and comma > end):
        return f"{text[: after.value_end]}, {pair}{shown(value)}{text[after.value_end :]}"
    line = doc.newline + indent + pair + indented(value, indent, doc.newline)
    if comma is not None:
        return f"{text[:end]}{line},{text[end:]}"
    return f"{text[: after.value_end]},{text[after.value_end : end]}{line}{text[end:]}"


def indented(value: Any, indent: str, newline: str) -> str:
    """Return a value in JSON, a table of keys over several lines."""
    if not isinstance(value, dict):
        return shown(value)
    return json.dumps(value, indent="\t" if "\t" in indent else indent or "  ").replace("\n", newline + indent)


def add_first(doc: Document, place: Table, pair: str) -> str:
    """Return the text with the first key of a table that has none."""
    text, start = doc.text, place.start or 0
    is_whole = place is doc.root
    inner = f"{doc.newline}  {pair}{doc.newline}" if is_whole else pair
    return text[:start] + inner + text[place.end :]


def comma_after(text: str, entry: Entry, place: Table) -> int | None:
    """Return where the comma behind an entry is; None where it has none."""
    at = entry.value_end
    while at < place.end and text[at] != ",":
        comment = COMMENT.match(text, at)
        at = comment.end() if comment else at + 1
    return at if at < place.end else None


def remove(doc: Document, path: KeyPath) -> str:
    """Return the text without a key; comments on its lines stay. The same text where it cannot be taken out alone."""
    text, place = doc.text, doc.root
    for name in path[:-1]:
        parent = place.get(name)
        if parent is None or parent.table is None:
            return text
        place = parent.table
    found = place.get(path[-1])
    if found is None or found.is_header:
        return text
    start, end = found.start, found.value_end
    if place.shape is Shape.FLOW:
        start, end = with_comma(doc, found, place)
    first, last = line_start(text, start), line_end(text, end)
    before, behind = text[first:start], text[end:last].strip()
    if before.strip() or (behind and not behind.startswith("#")):
        return text[:start] + text[end:].lstrip(" ") if place.shape is Shape.FLOW else text
    kept = comments(text, found, last)
    if kept:
        return text[:first] + doc.newline.join(before + comment for comment in kept) + text[last:]
    after = text.find("\n", last)
    return text[:first] + (text[after + 1 :] if after >= 0 else "")


def with_comma(doc: Document, found: Entry, place: Table) -> tuple[int, int]:
    """Return the span of an entry with the comma that goes with it: the one behind it, or of the last, which has none,
    the one before; YAML takes that with nothing behind it."""
    comma = comma_after(doc.text, found, place)
    if comma is not None:
        return found.start, comma + 1
    at = place.entries.index(found)
    before = comma_after(doc.text, place.entries[at - 1], place) if at and doc.language is not Language.YAML else None
    return (found.start if before is None else before), found.value_end


def comments(text: str, entry: Entry, end: int) -> list[str]:
    """Return the comments from a key to an offset; a # in the value of the one line, or in quotes, begins none."""
    is_line = "\n" not in text[entry.value_start : entry.value_end]
    start = entry.value_end if is_line else entry.key_end
    return [found[0] for found in TEXT_OR_COMMENT.finditer(text, start, end) if found[0].startswith("#")]
