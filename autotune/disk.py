"""The test whether a file system still takes data: asked of the file system, whatever a library says."""

import errno
import os
import tempfile
from pathlib import Path

ROOM = 2**20
"""Bytes that a folder must take to count as writable. One commit of a study needs a tenth of that, its journal
included; SQLite has given all of it back by the time that its error arrives, so the last free byte says nothing."""

IS_FULL = (errno.ENOSPC, errno.EDQUOT)


def refusal(folder: Path, size: int = ROOM) -> OSError | None:
    """Return the system's error where ``size`` more bytes cannot be written in ``folder``, or where it would be made;
    None where they can. They are really written (quotas, inodes and read-only mounts show in no figure), to a file
    without a name that vanishes with its handle."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            rest = memoryview(bytes(size))
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def remedy(error: OSError, option: str) -> str:
    """Return what to do about a folder that cannot be written; ``option``: the flag that names another place."""
    other = f"give another {option}"
    return f"make room there or {other}" if error.errno in IS_FULL else other
