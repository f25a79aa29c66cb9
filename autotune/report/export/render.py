"""Settings as text, in the forms that launchers read."""

import json
import shlex
from collections.abc import Iterable
from typing import Any

from autotune.report.export.edit.document import with_value
from autotune.report.export.edit.write import block
from autotune.report.export.target import Form, Settings


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
    if form == "json":
        return json.dumps(tree(settings), indent=2) + "\n"
    return block(tree(settings), "", "  ", "\n") + "\n"


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


def tree(settings: Settings) -> dict[str, Any]:
    """Return dotted keys as nested tables; what is None is left out."""
    values: dict[str, Any] = {}
    for dotted, value in settings.items():
        if value is not None:
            values = with_value(values, tuple(dotted.split(".")), value)
    return values
