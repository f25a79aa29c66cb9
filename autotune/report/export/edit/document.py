"""A config file as it is read: its language, its text, where its keys lie, and what they say."""

import json
import tomllib
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from autotune.report.export.edit.json_text import read_json
from autotune.report.export.edit.spans import Table, break_of, plain
from autotune.report.export.edit.toml_text import read_toml
from autotune.report.export.edit.yaml_text import read_yaml

KeyPath = tuple[str, ...]
"""The keys that lead to a value, the outermost first."""


class Language(Enum):
    """What a config file is written in."""

    JSON = "json"
    YAML = "yaml"
    TOML = "toml"


READERS = {Language.JSON: read_json, Language.YAML: read_yaml, Language.TOML: read_toml}


@dataclass(frozen=True)
class Document:
    """A config file; ``text`` is without a byte order mark."""

    language: Language
    text: str

    @cached_property
    def root(self) -> Table:
        """The outermost table. Raises what its reader raises where the text is not in the language."""
        return READERS[self.language](self.text)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values alone: of JSON and TOML as Python's own parsers read them."""
        root = self.root
        if self.language is Language.JSON:
            return dict(json.loads(self.text))
        return tomllib.loads(self.text) if self.language is Language.TOML else plain(root)

    @property
    def newline(self) -> str:
        """The line break that the file has."""
        return break_of(self.text)

    def with_text(self, text: str) -> "Document":
        """Return another text in the same language."""
        return Document(self.language, text)


def at_path(values: dict[str, Any], path: KeyPath) -> Any:
    """Return the value at a path of nested tables; None where there is none."""
    place: Any = values
    for name in path:
        place = place.get(name) if isinstance(place, dict) else None
    return place


def has_path(values: dict[str, Any], path: KeyPath) -> bool:
    """Return True where there is a key at a path, whatever its value."""
    place = at_path(values, path[:-1])
    return isinstance(place, dict) and path[-1] in place


def with_value(values: dict[str, Any], path: KeyPath, value: Any) -> dict[str, Any]:
    """Return the values with one key set, its parents made where they are missing."""
    name, *rest = path
    inner = values.get(name)
    return values | {name: with_value(inner if isinstance(inner, dict) else {}, tuple(rest), value) if rest else value}


def without(values: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return the values without one key; a table that has no other keys becomes null, as YAML has it."""
    name, *rest = path
    inner = values.get(name)
    if not rest:
        return {key: value for key, value in values.items() if key != name}
    return values | {name: without(inner, tuple(rest)) or None} if isinstance(inner, dict) else values
