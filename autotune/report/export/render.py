"""Settings as text: the forms that launchers read, and existing config files with only our keys changed."""

import json
import shlex
from collections.abc import Iterable, MutableMapping
from io import StringIO
from pathlib import Path
from typing import Any

from autotune.errors import InputError
from autotune.records.complaint import yaml_fault
from autotune.report.export.targets import Form, Settings


def render(settings: Settings, form: Form, call: str = "") -> str:
    """Return the settings in a launcher's form, with a newline at the end. ``call``: what Python arguments are given
    to."""
    if form == "flags":
        return flags(settings) + "\n"
    if form == "overrides":
        return lines(f"{key}={shown(value)}" for key, value in settings.items())
    if form == "shell":
        return lines(f"AUTOTUNE_{key.upper()}={shlex.quote(shown(value))}" for key, value in settings.items())
    if form == "python":
        arguments = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        return f"{call}({arguments})\n"
    return merged_json("{}", settings) if form == "json" else merged_yaml("", settings)


def flags(settings: Settings) -> str:
    """Return one line of command-line flags; what is true has no value, what is None or a list is left out."""
    arguments: list[str] = []
    for key, value in settings.items():
        if value is not None and not isinstance(value, list):
            arguments += [f"--{key}"] if value is True else [f"--{key}", shown(value)]
    return shlex.join(arguments)


def shown(value: Any) -> str:
    """Return a value on a command line."""
    return "null" if value is None else str(value)


def lines(parts: Iterable[str]) -> str:
    """Return each setting on a line of its own."""
    return "".join(f"{part}\n" for part in parts)


def set_keys(document: MutableMapping[str, Any], settings: Settings) -> None:
    """Set dotted keys in a nested mapping, making what is missing; raise InputError where a parent is no mapping."""
    for dotted, value in settings.items():
        *parents, last = dotted.split(".")
        table: Any = document
        for number, parent in enumerate(parents):
            table = table.setdefault(parent, {})
            if not isinstance(table, MutableMapping):
                path = ".".join(parents[: number + 1])
                raise InputError(f"--merge: {path} is no table of keys, so {dotted} cannot be set in it")
        table[last] = value


def merged(path: Path, settings: Settings) -> str:
    """Return the text of a JSON, YAML or TOML file with these keys set; all others, their order and comments as they
    were.

    Raises InputError where the file cannot be read as what its suffix says.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"--merge: cannot read {path}: {reason}") from None
    merge = {".json": merged_json, ".toml": merged_toml}.get(path.suffix, merged_yaml)
    try:
        return merge(text, settings)
    except InputError:
        raise
    except Exception as error:  # each parser has its own
        raise InputError(f"--merge: {path} is not {path.suffix[1:].upper()}: {yaml_fault(error)}") from None


def merged_json(text: str, settings: Settings) -> str:
    """Return JSON, which has no comments; its indentation becomes two blanks."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("its outermost value is no object")
    set_keys(document, settings)
    return json.dumps(document, indent=2) + "\n"


def merged_toml(text: str, settings: Settings) -> str:
    """Return TOML, merged by tomlkit, which keeps the style."""
    import tomlkit

    document = tomlkit.parse(text)
    set_keys(document, {key: value for key, value in settings.items() if value is not None})
    for dotted in (key for key, value in settings.items() if value is None):  # TOML has no null
        *parents, last = dotted.split(".")
        table: Any = document
        for parent in parents:
            table = table[parent]
        table.pop(last, None)
    return tomlkit.dumps(document)


def merged_yaml(text: str, settings: Settings) -> str:
    """Return YAML, merged by ruamel.yaml, which keeps comments and order."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # no line is broken that was not
    document = yaml.load(text)
    if document is None:
        document = {}
    if not isinstance(document, MutableMapping):
        raise ValueError("its outermost value is no mapping")
    set_keys(document, settings)
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()
