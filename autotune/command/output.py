"""What a command writes, as it arrives: cut into lines, kept on disk up to a limit, skimmed where it is too much."""

import fcntl
import os
import select
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from glob import iglob
from pathlib import Path
from typing import BinaryIO

from autotune.logs.text import LONGEST

KEPT_BYTES = 64 * 2**20
"""Of a command's output that is kept in the trial's folder."""
READ_BYTES = 2**20
"""Read at a time."""
SKIMMED_BYTES = 2**17
"""Of what arrives within one look that is looked at; of more only the end."""
TAKEN_BYTES = 2**26
"""Of what a pipe holds that is taken out of it within one look."""
PIPE_BYTES = 2**20
TAIL_LINES = 20


class Lines:
    """Bytes in, lines out. A line that does not end within ``LONGEST`` characters is cut."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now; carriage returns, as of progress bars, end lines too."""
        whole = (self.rest + data).replace(b"\r", b"\n").split(b"\n")
        self.rest = whole.pop()
        if len(self.rest) > LONGEST:
            whole.append(self.rest)
            self.rest = b""
        return [line[:LONGEST].decode("utf-8", "replace") for line in whole if line.strip()]

    def flush(self) -> list[str]:
        """Return what is left at the end."""
        rest, self.rest = self.rest, b""
        return [rest.decode("utf-8", "replace")] if rest.strip() else []


class Output:
    """The output of a running command: its pipe, and the files that it writes by itself (``globs``)."""

    def __init__(self, pipe: int, kept: Path, globs: tuple[str, ...] = ()) -> None:
        self.pipe, self.globs = pipe, globs
        os.set_blocking(pipe, False)
        with suppress(OSError):  # more than the system allows
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.kept: BinaryIO = kept.open("wb")
        self.room = KEPT_BYTES
        self.lines, self.of_file = Lines(), dict[str, tuple[int, Lines]]()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.is_open = True
        self.begun_at = time.time()

    def wait(self, seconds: float) -> None:
        """Wait until something arrives, or so long."""
        if self.is_open:
            select.select([self.pipe], [], [], seconds)
        else:
            time.sleep(seconds)

    def look(self) -> Iterator[str]:
        """Yield the lines that have arrived since the last look."""
        yield from self._told(self.lines.feed(self._arrived()))
        if not self.is_open:
            yield from self._told(self.lines.flush())
        for pattern in self.globs:
            for path in sorted(iglob(pattern, recursive=True)):
                yield from self._file_lines(path)

    def _told(self, lines: list[str]) -> list[str]:
        self.tail.extend(lines)
        return lines

    def _arrived(self) -> bytes:
        """What is in the pipe now; where that is too much, the end of it."""
        found, taken = b"", 0
        while taken < TAKEN_BYTES:
            chunk = self._chunk()
            if not chunk:
                break
            self.kept.write(chunk[: self.room])
            self.room -= min(self.room, len(chunk))
            found, taken = (found + chunk)[-SKIMMED_BYTES:], taken + len(chunk)
        if taken <= SKIMMED_BYTES:
            return found
        self.lines.rest = b""
        return found.partition(b"\n")[2]

    def _chunk(self) -> bytes:
        """The next bytes of the pipe; none where there are none now, or will be none any more."""
        try:
            chunk = os.read(self.pipe, READ_BYTES)
        except BlockingIOError:
            return b""
        self.is_open = bool(chunk)
        return chunk

    def _file_lines(self, path: str) -> list[str]:
        """New lines of a file that the command writes; one that was there before it began is not its own."""
        try:
            if path not in self.of_file and os.path.getmtime(path) < self.begun_at:
                return []
            at, lines = self.of_file.get(path, (0, Lines()))
            with open(path, "rb") as file:
                at = max(at, file.seek(0, os.SEEK_END) - SKIMMED_BYTES)
                file.seek(at)
                data = file.read(SKIMMED_BYTES)
        except OSError:
            return []
        self.of_file[path] = (at + len(data), lines)
        return lines.feed(data)

    def close(self) -> None:
        """Let go of the file in which it is kept."""
        self.kept.close()
