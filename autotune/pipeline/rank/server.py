"""The process that ranks are forked from: it has loaded torch, once, in the environment where the model runs.

::

    controller --socket: what to run--> server --fork--> rank 0, rank 1, ...
               <--a pipe for each: its process id, and then how it has ended--

multiprocessing's forkserver does the same between two interpreters of one version. Here the environment of the ranks
may have another, and nothing is installed in it but torch: requests are JSON, and a rank imports nothing of the
controller's.
"""

import gc
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

NUMBER = struct.Struct("<q")  # a process id, or how the process ended
MOST_BYTES = 2**16  # of a request
RANK_CODE = "autotune.pipeline.rank.rank"


def load() -> None:
    """Load all that a rank needs, without looking for garbage: loading torch makes many objects and hardly any. In the
    ranks, what was loaded is never looked at again."""
    gc.disable()
    try:
        import_module(RANK_CODE)
    finally:
        gc.freeze()
        gc.enable()


def called(place: str) -> Callable[..., Any]:
    """Return the function that ``module:name`` names."""
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def answer(place: str, *rest: Any) -> None:
    """Send what the function at ``place`` returns, as JSON; the last argument is the connection."""
    *arguments, connection = rest
    connection.send_bytes(json.dumps(called(place)(*arguments)).encode())


def leave() -> None:
    """End this process after its controller, whose files it removes: one that was killed could not."""
    shutil.rmtree(os.environ["AUTOTUNE_FOLDER"], ignore_errors=True)
    os._exit(0)  # destroying a process group would wait for neighbours that may be gone


def leave_with_controller(alive: int) -> None:
    """End this process when the controller has gone, even while a collective waits for a dead neighbour: only the
    controller holds the other end of the pipe ``alive``."""

    def watch() -> None:
        os.read(alive, 1)
        leave()

    threading.Thread(target=watch, daemon=True, name="watch controller").start()


class Server:
    """``control``: where requests come from. ``alive``: a pipe that ends with the controller."""

    def __init__(self, control: socket.socket, alive: int) -> None:
        self.control, self.alive = control, alive
        self.forks: dict[int, int] = {}  # the pipe to tell of each process, by process id
        self.woken, wake = os.pipe()
        for end in (self.woken, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's business
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that its coming is written to ``wake``
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Fork what is asked for until the controller has gone; what still runs then is killed."""
        while True:
            ready, _, _ = select.select([self.control.fileno(), self.woken], [], [])
            if self.woken in ready:
                os.read(self.woken, 1024)
                self.reap()
            if self.control.fileno() in ready:
                message, handles, _, _ = socket.recv_fds(self.control, MOST_BYTES, 2)
                if not message:
                    break
                self.fork(json.loads(message), *handles)
        for process in self.forks:
            os.kill(process, signal.SIGKILL)
        leave()

    def reap(self) -> None:
        """Tell of every process that has ended."""
        while self.forks:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            self.tell(process, os.waitstatus_to_exitcode(status))
            os.close(self.forks.pop(process))

    def tell(self, process: int, number: int) -> None:
        """Write a number to whoever asked for the process, who may not listen any more."""
        with suppress(BrokenPipeError):
            os.write(self.forks[process], NUMBER.pack(number))

    def fork(self, request: dict[str, Any], connection: int, told: int) -> None:
        """Run what the request says in a process of its own, which has the ``connection``."""
        process = os.fork()
        if process == 0:
            os.close(told)
            self.run(request, connection)
        os.close(connection)
        self.forks[process] = told
        self.tell(process, process)

    def run(self, request: dict[str, Any], connection: int) -> None:
        """Be the process: let go of what is the server's, do the work, end."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for handle in (self.control.fileno(), self.woken, *self.forks.values()):
                os.close(handle)
            leave_with_controller(self.alive)
            called(request["place"])(*request["arguments"], Connection(connection))
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)


def main(control: int, alive: int) -> None:
    """Be the server, on the handles that the controller has left open for it. Temporary files of torch and of models
    lie in the controller's folder, and go with it: a rank ends without tidying up, and loading torch 2.6 makes one."""
    tempfile.tempdir = os.environ["AUTOTUNE_FOLDER"]
    load()
    Server(socket.socket(fileno=control), alive).serve()
