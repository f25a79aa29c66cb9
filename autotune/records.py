"""The base of every record that is written to JSON, and the one way to write and read such a file."""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autotune.errors import InputError

SCHEMA_VERSION = 1


class Record(BaseModel):
    """An immutable value that survives a round trip through JSON; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


R = TypeVar("R", bound=Record)


def explain(error: ValidationError) -> str:
    """Returns the first complaint of ``error`` as ``path: rule (given: value)``, and how many more there are."""
    first, *rest = error.errors()
    path = ".".join(str(part) for part in first["loc"]) or "the record"
    given = "" if isinstance(first["input"], dict | list) else f" (given: {first['input']!r})"
    more = f"; and {len(rest)} more" if rest else ""
    return f"{path}: {first['msg'].removeprefix('Value error, ')}{given}{more}"


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``torch was 2.12.0, is 2.13.0`` for each value that is not as it was."""
    return [f"{name} was {before.get(name)}, is {value}" for name, value in now.items() if before.get(name) != value]


def read_json(path: Path) -> Any:
    """Reads one JSON document; raises InputError with the path, and the position of a syntax error."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def read_record(path: Path, record: type[R], kind: str) -> R:
    """Reads a ``record`` whose ``kind`` field says ``kind``; raises InputError that names path and field."""
    document = read_json(path)
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise InputError(f'{path} is not an {kind.replace(".", " ")}: its "kind" must be "{kind}"')
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {version}; this autotune reads up to {SCHEMA_VERSION}: upgrade autotune"
        )
    try:
        return record.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None


def write_json(path: Path, document: Any) -> None:
    """Writes strict JSON."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a temporary file beside ``path`` and renames it, so a reader never sees half a file."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give another path with --out") from None
    try:
        with os.fdopen(handle, "w") as file:
            if path.exists():
                os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}; give another path with --out") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_record(path: Path, record: Record) -> None:
    """Writes ``record`` atomically; fields that were never measured are written as null."""
    write_json(path, record.model_dump(mode="json", by_alias=True))
