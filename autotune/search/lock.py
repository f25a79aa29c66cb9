"""One run at a time on one study: a lock that the kernel lets go when the process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autotune.errors import DeviceError
from autotune.records import STATE_DIR, not_written


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds ``path`` locked, with the process id in it, and removes it; raises DeviceError where another holds it."""
    handle = _lock(path)
    try:
        try:
            os.write(handle, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise not_written(path, error, STATE_DIR) from None
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked: whoever opened it by now sees that it is gone
        os.close(handle)
        with suppress(OSError):
            path.parent.rmdir()  # a run that ended before it had anything to keep


def _lock(path: Path) -> int:
    """The handle of the file that is locked, empty, and still the one of that name."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise not_written(path, error, STATE_DIR) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace").strip()
            os.close(handle)
            raise DeviceError(
                f"another autotune (process {holder or 'unknown'}) is working on this study; wait for it to end, or"
                f" give another --state-dir than {path.parent}"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                return handle
        os.close(handle)
