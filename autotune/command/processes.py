"""The processes of a trial: all that carry its mark in their environment or belong to its group, and how they end.

torchrun gives every rank a session of its own, so a signal to the command's group does not reach them; but they inherit
its environment.
"""

import os
import signal
import time
from pathlib import Path

MARK = "AUTOTUNE_TRIAL_DIR"
PATIENCE_S = {signal.SIGINT: 3.0, signal.SIGTERM: 3.0, signal.SIGKILL: 10.0}
"""How long processes have after each signal before the next one comes."""
LOOK_S = 0.1


def members(mark: str, group: int) -> list[int]:
    """Return the processes of a trial that live: of the ``group`` that its command leads, and all with ``mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            state, own_group = status_of(entry)
            is_marked = wanted in (entry / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError, ValueError):
            continue  # it has ended, or is another user's
        if state not in ("Z", "X") and (is_marked or own_group == group):
            found.append(int(entry.name))
    return found


def status_of(entry: Path) -> tuple[str, int]:
    """Return the state and the process group of a process."""
    fields = (entry / "stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[2])


def end(mark: str, group: int) -> list[int]:
    """End all processes of a trial, asked first and forced at last; return those that are still there."""
    for number, patience in PATIENCE_S.items():
        left = members(mark, group)
        if not left:
            return []
        for process in left:
            try:
                os.kill(process, number)
            except (ProcessLookupError, PermissionError):
                continue
        if gone(mark, group, patience):
            return []
    return members(mark, group)


def gone(mark: str, group: int, patience: float) -> bool:
    """Return whether all processes of a trial have ended within ``patience`` seconds."""
    until = time.monotonic() + patience
    while members(mark, group):
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_S)
    return True
