"""The base of every record that is written to JSON, and the one way to write and read such a file."""

import glob
import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autotune.disk import remedy
from autotune.errors import InputError
from autotune.records.complaint import explain

SCHEMA_VERSION = 1
MOST_BYTES = 32 * 2**20  # of a file that is read; a report of 200 candidates on 16 ranks has about one MiB
OUT, STATE_DIR = "path with --out", "--state-dir"  # by what a user chooses where a file goes
COMMENT = re.compile(rb"^[ \t]*//.*$", re.MULTILINE)  # a line of its own, which is part of no JSON value


class Record(BaseModel):
    """An immutable value that survives a round trip through JSON; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class TypedRecord(Record):
    """A record that people make in Python: what is wrong with it is an InputError in words, as it is in a file."""

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(f"{type(self).__name__}: {explain(error, type(self))}") from None

    # Pydantic goes on to make those inside of others without it, so that a complaint has the whole path to a field.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


R = TypeVar("R", bound=Record)


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the whole file; raise OSError, and InputError where it is larger than anything that autotune reads."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} is larger than {most // 2**20} MiB: nothing that autotune reads is")
    return content


def read_json(path: Path) -> Any:
    """Read one JSON document, with lines of comment that begin with // where people wrote some; raise
    InputError with the path, and the position of a syntax error."""
    try:
        return json.loads(COMMENT.sub(b"", read_bytes(path)))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise InputError(f"{path} is not JSON: {error}") from None


def read_record(path: Path, record: type[R], *kinds: str) -> R:
    """Read a ``record`` whose ``kind`` field says one of ``kinds``; raise InputError that names path and field."""
    document = read_json(path)
    if not isinstance(document, dict) or document.get("kind") not in kinds:
        words = " or ".join(f'"{kind}"' for kind in kinds)
        raise InputError(f'{path} is not an {kinds[0].replace(".", " ")}: its "kind" must be {words}')
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {version}; this autotune reads up to {SCHEMA_VERSION}: upgrade autotune"
        )
    try:
        return record.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, record)}") from None


def write_json(path: Path, document: Any, option: str = OUT) -> None:
    """Write strict JSON."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n", option)


def not_written(path: Path, error: OSError, option: str = OUT) -> InputError:
    """Return why ``path`` cannot be written, and what to do; ``option``: by what the user chooses the place."""
    return InputError(f"cannot write {path}: {error.strerror}; {remedy(error, option)}")


def write_text(path: Path, text: str, option: str = OUT) -> None:
    """Write a temporary file beside ``path`` and rename it, so a reader never sees half a file. ``option``: by what
    the user chooses the place."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}-")
    except OSError as error:
        raise not_written(path, error, option) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if path.exists():
                os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise not_written(path, error, option) from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` have left beside it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*-*"):
        writer = temporary.name.removeprefix(f".{path.name}.").partition("-")[0]
        if writer.isdecimal() and not is_alive(int(writer)):
            temporary.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_record(path: Path, record: Record, option: str = OUT) -> None:
    """Write ``record`` atomically; fields that were never measured are written as null."""
    write_json(path, record.model_dump(mode="json", by_alias=True), option)
