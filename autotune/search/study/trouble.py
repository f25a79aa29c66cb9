"""The fault of a study's SQLite file, and what to do: never a word about removing one that can be read."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from autotune.disk import refusal, remedy
from autotune.errors import InputError
from autotune.records.base import STATE_DIR

DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def check_study(state_dir: Path) -> None:
    """Raise InputError where the study in the state directory is damaged: before anything is profiled for it."""
    path = state_dir / "study.db"
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            ((found, *_), *_) = database.execute("pragma quick_check(1)").fetchall()
    except sqlite3.Error as error:
        raise InputError(trouble_with(path, error, "open")) from None
    if found != "ok":
        what = " ".join(str(found).split())
        raise InputError(
            f"cannot open the study {path}: it is damaged ({what}); move the file away or give another {STATE_DIR}"
        )


def trouble_with(path: Path, error: Exception, doing: str) -> str:
    """Return what keeps us from ``doing`` (open, write) the study at ``path``, and what to do about it.

    The file system is asked first: SQLAlchemy and Optuna put a full disk into many words, some of which blame the data.
    """
    if any(code & 0xFF in DAMAGED for code in sqlite_codes(error)):
        return f"cannot {doing} the study {path}: {first_line(error)}; move the file away or give another {STATE_DIR}"
    refused = refusal(path.parent)
    if refused is None and any(code & 0xFF == sqlite3.SQLITE_FULL for code in sqlite_codes(error)):
        refused = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # others have made room since
    if refused is not None:
        return f"cannot write the study {path}: {refused.strerror}; {remedy(refused, STATE_DIR)}"
    what = first_line(error)
    return f"cannot {doing} the study {path}: {what}; the file is left as it is; give another {STATE_DIR}"


def first_line(error: BaseException) -> str:
    """Return the first line of the innermost cause, or its type where it says nothing."""
    *_, innermost = causes(error)
    return (str(innermost).strip().splitlines() or [type(innermost).__name__])[0]


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what it was raised from, outermost first."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__


def sqlite_codes(error: BaseException) -> list[int]:
    """Return SQLite's own result codes among the causes; the driver's errors carry them as numbers."""
    codes = (getattr(cause, "sqlite_errorcode", None) for cause in causes(error))
    return [code for code in codes if code is not None]
