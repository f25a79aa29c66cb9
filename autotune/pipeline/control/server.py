"""The controller's hold on the server that ranks are forked from, in the environment where the model runs.

The process that starts ranks never imports torch itself: that would cost it seconds, and it may have none.
"""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import autotune
from autotune.errors import DeviceError, UsageError
from autotune.pipeline.rank.server import NUMBER

GONE_S = 10.0  # that a process may take to go after SIGKILL: its memory is given back, on the GPU too

# The package is found by its file: to have its folder on the path would bring what else is installed there, of another
# version of Python. Its own interpreter gets the whole path, as a fork would; nothing comes from the working folder.
BOOT = """
import sys
sys.path[:] = [part for part in sys.path if part]
from importlib.util import module_from_spec, spec_from_file_location
from json import loads
package, path, control, alive = loads(sys.argv[1])
sys.path[:] = path or sys.path
spec = spec_from_file_location("autotune", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["autotune"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["autotune"])
from autotune.pipeline.rank.server import main
main(control, alive)
"""


class Child:
    """A process that a server has forked; ``status``: the pipe over which the server tells of it."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid, self._status = pid, status
        self.exitcode: int | None = None  # negative: the signal that ended it

    def is_alive(self) -> bool:
        """Return whether it has not ended yet."""
        self.join(0.0)
        return self._status >= 0

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most ``timeout`` seconds."""
        if self._status < 0 or not select.select([self._status], [], [], timeout)[0]:
            return
        told = os.read(self._status, NUMBER.size)
        self.exitcode = NUMBER.unpack(told)[0] if told else None  # nothing: the server has gone, and it with it
        os.close(self._status)
        self._status = -1

    def kill(self) -> None:
        """Kill it, without waiting."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Server:
    """The server under the interpreter ``python``. Raises UsageError where that cannot be run."""

    def __init__(self, python: str) -> None:
        self.python, self.folder = python, Path(tempfile.mkdtemp(prefix="autotune-"))
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        alive, self._alive = os.pipe()
        path = sys.path if python == sys.executable else []
        told = json.dumps([str(Path(autotune.__file__).parent), path, control.fileno(), alive])
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [python, "-c", BOOT, told],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment(),
                    pass_fds=(control.fileno(), alive),
                )
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._control.close()
            os.close(self._alive)
            raise UsageError(
                f"--python: cannot run {python}: {error.strerror}; give the Python of the environment that has torch"
            ) from None
        finally:
            control.close()
            os.close(alive)
        atexit.register(self.close)

    @property
    def log(self) -> Path:
        """File with what it says when it cannot start."""
        return self.folder / "server.log"

    def _environment(self) -> dict[str, str]:
        return {
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else counting GPUs begins CUDA, and a fork cannot use it
            "TORCHINDUCTOR_CACHE_DIR": f"{self.folder}/inductor",  # torch makes one when it is loaded
            **os.environ,
            "AUTOTUNE_FOLDER": str(self.folder),  # which it removes when the controller was killed
        }

    @property
    def is_alive(self) -> bool:
        """True until it has ended."""
        return self.process.poll() is None

    def fork(self, place: str, arguments: list[Any]) -> tuple[Child, Connection]:
        """Run ``module:name`` with JSON arguments and a connection in a process that has torch loaded; return the
        process and our end of the connection. Raises DeviceError where torch cannot be loaded."""
        ours, theirs = Pipe()
        status, told = os.pipe()
        try:
            request = json.dumps({"place": place, "arguments": arguments}).encode()
            socket.send_fds(self._control, [request], [theirs.fileno(), told])
        except OSError:
            pass  # it has gone; so the pipe ends at once
        finally:
            theirs.close()
            os.close(told)
        process = os.read(status, NUMBER.size)
        if not process:
            ours.close()
            os.close(status)
            raise self._has_gone()
        return Child(NUMBER.unpack(process)[0], status), ours

    def _has_gone(self) -> DeviceError:
        """Why it could not start, or is no more."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GONE_S)
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        words = lines[-1] if lines else f"it ended with status {self.process.returncode}"
        return DeviceError(
            f"ranks cannot be started under {self.python}: {words}; install torch there, or give the Python of the"
            " environment that has torch with --python"
        )

    def close(self) -> None:
        """End it and all that it has forked, and remove their files."""
        atexit.unregister(self.close)
        self._control.close()
        try:
            self.process.wait(GONE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self._alive)
        shutil.rmtree(self.folder, ignore_errors=True)


_servers: dict[str, Server] = {}


def server(python: str = sys.executable) -> Server:
    """Return the server under an interpreter; starts it where it does not run, and does not wait until it has torch."""
    found = _servers.get(python)
    if found is None or not found.is_alive:
        found = _servers[python] = Server(python)
    return found


def in_torch(place: str, *arguments: object, python: str = sys.executable) -> Any:
    """Return what ``module:name`` returns in a process that has torch loaded: a JSON value."""
    process, connection = server(python).fork("autotune.pipeline.rank.server:answer", [place, *arguments])
    try:
        return json.loads(connection.recv_bytes())
    except EOFError:
        raise DeviceError("torch could not be loaded; run autotune doctor, or install torch again") from None
    finally:
        process.join()
        connection.close()
