"""Values and new keys as a file writes them: in its language, with its quotes, indentation and signs."""

import json
import re
from typing import Any

from autotune.report.export.edit.spans import Entry, Shape, Table, break_of, line_start

SAFE = re.compile(r"[A-Za-z0-9_][\w.*|+-]*")
"""What YAML reads as text without quotes, unless it reads it as something else."""
OTHER_THAN_TEXT = re.compile(r"(?i:true|false|null|yes|no|on|off|y|n)|[-+.\d][\d_.]*(?:e[-+]?\d+)?|0[xo][\da-f]+")
SIGN = re.compile(r"[ \t]*[:=][ \t]*")


def shown(value: Any, old: str = "", *, is_yaml: bool = False) -> str:
    """Return a value in JSON, which TOML and YAML read too; a text in the quotes that the old one has, in YAML in none
    where it needs none."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if is_yaml and old[:1] != '"' and SAFE.fullmatch(value) and not OTHER_THAN_TEXT.fullmatch(value):
        return f"'{value}'" if old[:1] == "'" else value
    return f"'{value}'" if old[:1] == "'" and "'" not in value else json.dumps(value, ensure_ascii=False)


def key_text(key: str, beside: str, *, is_json: bool) -> str:
    """Return a key in the quotes of the one beside it."""
    if is_json or beside[:1] == '"':
        return json.dumps(key)
    return f"'{key}'" if beside[:1] == "'" else key


def sign_of(text: str, table: Table, usual: str) -> str:
    """Return what stands between key and value in a table, such as ``": "``: of the first entry that has both on a
    line."""
    for entry in table.own:
        between = text[entry.key_end : entry.value_start]
        if entry.value_end > entry.value_start and SIGN.fullmatch(between):
            return re.sub(r"[ \t]+", " ", between) if table.shape is not Shape.FLOW else between
    return usual


def step_of(text: str, table: Table) -> str:
    """Return by how many blanks the file indents what is deeper."""
    for entry in table.entries:
        inner = entry.table
        if inner is None or not inner.entries:
            continue
        first = inner.entries[0]
        outer, deeper = column(text, entry), column(text, first)
        if deeper > outer and line_start(text, first.start) > entry.start:
            return " " * (deeper - outer)
    return "  "


def column(text: str, entry: Entry) -> int:
    """Return how far from the beginning of its line a key stands."""
    return entry.start - line_start(text, entry.start)


def block(values: dict[str, Any], indent: str, step: str, newline: str) -> str:
    """Return nested keys in YAML, a line each, without a line break at the end."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", block(value, indent + step, step, newline)]
        else:
            lines.append(f"{indent}{key}: {shown(value, is_yaml=True)}")
    return newline.join(lines)


def section(name: str, values: dict[str, Any], text: str) -> str:
    """Return a new section at the end of a TOML file."""
    newline = break_of(text)
    lines = [f"[{name}]", *(f"{key} = {shown(value)}" for key, value in values.items())]
    last = newline if not text or text.endswith("\n") else ""
    first = "" if not text else newline if text.endswith("\n") else newline * 2
    return first + newline.join(lines) + last
