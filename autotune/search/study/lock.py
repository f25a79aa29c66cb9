"""One run at a time on one study: a lock that the kernel lets go when the process ends, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from autotune.errors import DeviceError
from autotune.records.base import STATE_DIR, not_written


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` locked, with the process id in it, and remove it; raise DeviceError where another holds it."""
    lock = FileLock(path, mode=0o600, blocking=False, fallback_to_soft=False)  # a soft lock would outlive a kill -9
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except Timeout:
        raise DeviceError(
            f"another autotune (process {holder(path)}) is working on this study; wait for it to end, or give another"
            f" --state-dir than {path.parent}"
        ) from None
    except OSError as error:
        raise not_written(path, error, STATE_DIR) from None
    try:
        try:
            path.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise not_written(path, error, STATE_DIR) from None
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked: FileLock takes no file that has lost its name
        lock.release()
        with suppress(OSError):
            path.parent.rmdir()  # a run that ended before it had anything to keep


def holder(path: Path) -> str:
    """Return the process that has written its id there."""
    try:
        return path.read_text(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"  # it has ended meanwhile
