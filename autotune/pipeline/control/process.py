"""One rank's process on this host, forked from a server that has torch loaded, and the pipe to it."""

import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from autotune.pipeline.control.diagnose import diagnose_exit, oom_kills, process_status
from autotune.pipeline.control.server import GONE_S, Server, server
from autotune.pipeline.hosts.wire import Assignment, ProcessStatus
from autotune.records.failure import Failure


class Run(NamedTuple):
    """What the process of a rank runs: the function ``module:name``, called with ``arguments``, where the rank belongs
    (an Assignment in JSON), its folder, and the pipe to whoever started it."""

    place: str = "autotune.pipeline.rank.rank:serve"
    arguments: tuple[Any, ...] = ()


class LocalRank:
    """A live rank of this host, under the interpreter ``python``. ``folder``: where its files are, which
    ``make_folder`` makes."""

    is_connected = True

    def __init__(
        self, assignment: Assignment, folder: Path, run: Run | None = None, python: str = sys.executable
    ) -> None:
        self.assignment, self.rank, self.folder = assignment, assignment.rank, folder
        self._oom_kills = oom_kills()  # in our control group when it was started
        place, arguments = run or Run()
        self.process, self.connection = server(python).fork(place, [*arguments, asdict(assignment), str(folder)])

    @property
    def is_alive(self) -> bool:
        """True while it is ready for a command."""
        return self.process.is_alive()

    def send(self, message: bytes) -> None:
        """Hand it a command; raise OSError where it has gone."""
        self.connection.send_bytes(message)

    def hear(self) -> bytes | Failure:
        """Return what it says, once ``connection`` is ready; or how it died."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            return self.diagnose_exit()

    def status(self) -> ProcessStatus:
        """Return its process's status, as seen from outside."""
        return process_status(self.process.pid, self.folder, self.rank)

    def give_up(self, after_s: float) -> None:
        """Do nothing: a process of this host is never out of sight."""

    def diagnose_exit(self) -> Failure:
        """Describe how it exited."""
        self.process.join(1.0)
        was_out_of_memory = oom_kills() != self._oom_kills
        return diagnose_exit(self.assignment, self.process.exitcode, self.status(), was_out_of_memory)

    def end(self) -> None:
        """Kill the process: ranks hold nothing worth saving."""
        self.process.kill()

    def close(self) -> None:
        """Wait after ``end`` until it has gone, or hangs in the kernel, where no signal reaches it."""
        self.process.join(GONE_S)
        self.connection.close()


def make_folder(host: Server) -> Path:
    """Make a folder for the files of ranks, mode 0700: their rendezvous is the user's alone."""
    return Path(tempfile.mkdtemp(prefix="ranks-", dir=host.folder))


def remove_folder(folder: Path) -> None:
    """Remove the folder once the ranks have gone."""
    shutil.rmtree(folder, ignore_errors=True)
