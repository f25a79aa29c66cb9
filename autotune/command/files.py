"""Files that a launcher reads: each trial has a copy of its own with its values, and the user's file stays as it is."""

import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, Self

import tomlkit
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from autotune.command.template import fill
from autotune.errors import InputError, UsageError
from autotune.records.complaint import yaml_fault

SUFFIXES = (".json", ".toml", ".yaml", ".yml")


class Setting(NamedTuple):
    """``--set FILE:KEY=VALUE``: a key of a file, with dots between its parts, and the value with placeholders."""

    file: Path
    key: tuple[str, ...]
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the setting in ``config.yaml:tokens.micro_batch_size={micro_batch_size}``; raise UsageError."""
        place, equals, value = text.partition("=")
        file, colon, key = place.rpartition(":")
        if not equals or not colon or not file or not all(key.split(".")):
            raise UsageError(f"--set: {text!r} is not FILE:KEY=VALUE; write config.yaml:tokens.micro_batch_size=...")
        if Path(file).suffix not in SUFFIXES:
            raise UsageError(f"--set: {file} is not a file of {', '.join(SUFFIXES)}; give one of these")
        return cls(Path(file), tuple(key.split(".")), value)


def copies(settings: Sequence[Setting], values: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Write into ``folder`` a copy of every file with its values, and return the copies' paths by the files'. Raises
    InputError for a file that cannot be read, or has no such key."""
    made = {}
    if settings:
        folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(dict.fromkeys(one.file for one in settings)):
        text = read(file)
        for one in settings:
            if one.file == file:
                text = with_value(file, text, one.key, typed(fill(one.value, values)))
        copy = folder / (file.name if number == 0 else f"{number}-{file.name}")
        copy.write_text(text, encoding="utf-8")
        made[str(file)] = str(copy)
    return made


def read(file: Path) -> str:
    """Return the text of a file; raise InputError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"--set: cannot read {file}: {reason}; give the file that the command reads") from None


def with_value(file: Path, text: str, key: Sequence[str], value: Any) -> str:
    """Return the text of ``file`` with one value changed, comments and order kept where the form has them."""
    try:
        if file.suffix == ".json":
            document = json.loads(text)
            put(file, document, key, value)
            return json.dumps(document, indent=2)
        if file.suffix == ".toml":
            table = tomlkit.parse(text)
            put(file, table, key, value)
            return tomlkit.dumps(table)
        yaml = YAML()
        document, out = yaml.load(text), StringIO()
        put(file, document, key, value)
        yaml.dump(document, out)
        return out.getvalue()
    except (ValueError, YAMLError) as error:
        raise InputError(f"--set: {file} cannot be read: {yaml_fault(error)}; mend the file") from None


def put(file: Path, document: Any, key: Sequence[str], value: Any) -> None:
    """Change the value of a key that is there already, or add it to a table that is; raise InputError for a table that
    is not."""
    *parents, last = key
    place = document
    for depth, name in enumerate(parents):
        if not isinstance(place, dict) or name not in place:
            raise InputError(f"--set: {file} has no {'.'.join(key[: depth + 1])}; give a key that it has")
        place = place[name]
    if not isinstance(place, dict):
        raise InputError(f"--set: {'.'.join(parents)} of {file} is no table; give a key of one")
    place[last] = value


def present_value(setting: Setting) -> Any:
    """Return what the file of a setting holds now at its key; None where it has no such key. Raises InputError for a
    file that cannot be read."""
    text = read(setting.file)
    try:
        place: Any = parsed(setting.file, text)
    except (ValueError, YAMLError) as error:
        raise InputError(f"--set: {setting.file} cannot be read: {yaml_fault(error)}; mend the file") from None
    for name in setting.key:
        place = place.get(name) if isinstance(place, dict) else None
    return place


def parsed(file: Path, text: str) -> Any:
    """Return the values in a file's text; raise what its parser raises."""
    if file.suffix == ".json":
        return json.loads(text)
    return tomlkit.parse(text) if file.suffix == ".toml" else YAML().load(text)


def typed(text: str) -> Any:
    """Return a number or a truth value where the text is one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def with_copies(words: Sequence[str], made: Mapping[str, str]) -> list[str]:
    """Return a command that reads the copies: a word that is the file, or ends with ``=`` and the file."""
    found = []
    for word in words:
        for file, copy in made.items():
            if word == file or word.endswith(f"={file}"):
                word = word.removesuffix(file) + copy
        found.append(word)
    return found
