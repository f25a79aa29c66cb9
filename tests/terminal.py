"""A command on a real terminal of a given size, without a person before it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path


def typed(arguments: list[str], folder: Path, columns: int, name: str = "xterm-256color", **variables: str) -> str:
    """What ``autotune`` with these arguments writes to a terminal of so many columns; the progress too."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "COLORTERM")}
    environment |= {"TERM": name, **variables}
    words = [sys.executable, "-m", "autotune", *arguments]
    with subprocess.Popen(
        words, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        parts = []
        while part := read(controller):
            parts.append(part)
    os.close(controller)
    assert process.returncode == 0, b"".join(parts)
    return b"".join(parts).decode().replace("\r\n", "\n")


def read(controller: int) -> bytes:
    """The next bytes; nothing where the other side has gone, which Linux calls an error."""
    try:
        return os.read(controller, 65536)
    except OSError:
        return b""
