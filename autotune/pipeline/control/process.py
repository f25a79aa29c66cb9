"""One rank's process on this host, forked from a server that has torch loaded, and the pipe to it.

The process that starts ranks never imports torch itself: that would cost it seconds.
"""

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from autotune.errors import DeviceError, InputError
from autotune.pipeline.control.diagnose import diagnose_exit, oom_kills, process_status
from autotune.pipeline.hosts.wire import Assignment, ProcessStatus
from autotune.records.base import Record
from autotune.records.job.workload import ModelConfig, ModelRequest
from autotune.records.outcome import Failure

Run = Callable[[Assignment, str, Connection], None]
"""Called with the rank's assignment, the folder of its files, and the pipe to its starter, as ``run_rank`` is."""

LONGEST_SOCKET_NAME = 107  # bytes: sun_path of Linux without the zero at its end
GONE_S = 10.0  # that a process may take to go after SIGKILL: its memory is given back, on the GPU too
CONTEXT = multiprocessing.get_context("forkserver")


class LocalRank:
    """A live rank of this host. ``folder``: where its files are, which ``make_folder`` makes."""

    is_connected = True

    def __init__(self, assignment: Assignment, folder: Path, run: Run | None = None) -> None:
        self.assignment, self.rank, self.folder = assignment, assignment.rank, folder
        self._oom_kills = oom_kills()  # in our control group when it was started
        self.connection, theirs = CONTEXT.Pipe()
        arguments = (assignment, str(folder), theirs)
        name = f"autotune rank {assignment.rank}"
        self.process = CONTEXT.Process(target=run or run_rank, args=arguments, daemon=True, name=name)
        self.process.start()
        theirs.close()

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
        return process_status(int(self.process.pid or 0), self.folder, self.rank)

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
        if self.process.is_alive():
            forget(self.process)
        self.connection.close()


def forget(process: BaseProcess) -> None:
    """Keep multiprocessing from waiting for a process when this one ends, as it does for all that it knows."""
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]  # there is no other way


def make_folder() -> Path:
    """Make a folder for the files of ranks, mode 0700: their rendezvous is the user's alone."""
    return Path(tempfile.mkdtemp(prefix="ranks-", dir=util.get_temp_dir()))


def remove_folder(folder: Path) -> None:
    """Remove the folder once the ranks have gone."""
    shutil.rmtree(folder, ignore_errors=True)


def run_rank(assignment: Assignment, folder: str, connection: Connection) -> None:
    """Run in the rank's process, where torch is loaded."""
    from autotune.pipeline.rank.rank import serve

    serve(assignment, folder, connection)


def load_torch() -> None:
    """Start the server that ranks are forked from, if it does not run yet, without waiting until it has torch."""
    CONTEXT.set_forkserver_preload(["autotune.pipeline.device.preload"])
    folder = os.environ["AUTOTUNE_FOLDER"] = util.get_temp_dir()  # multiprocessing's own; the server removes it
    os.environ.setdefault(
        "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
    )  # else counting GPUs begins CUDA, and a fork cannot use it
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{folder}/inductor")  # torch makes one when it is loaded
    with short_socket_name(folder):
        forkserver.ensure_running()


@contextmanager
def short_socket_name(folder: str) -> Iterator[None]:
    """Have multiprocessing make the server's socket in /tmp where that cannot be in its own ``folder``: the name of a
    socket is short (unix(7)), and a job's temporary folder may have a long one. All other files stay in ``folder``."""
    if len(os.fsencode(folder)) + len("/listener-12345678") <= LONGEST_SOCKET_NAME:
        yield
        return
    sockets = os.environ.get("AUTOTUNE_SOCKETS", "")
    if not os.path.isdir(sockets):
        sockets = os.environ["AUTOTUNE_SOCKETS"] = tempfile.mkdtemp(
            prefix="autotune-", dir="/tmp"
        )  # the server removes it
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    config["tempdir"] = sockets
    try:
        yield
    finally:
        config["tempdir"] = folder


def collect_environment() -> dict[str, Any]:
    """Return what torch sees on this host, asked in a process of its own so that the controller needs no torch."""
    answer: dict[str, Any] = in_torch(run_collect_environment)
    return answer


def matrix_rate(device: str, ranks: int, precision: str) -> float:
    """Return floating-point operations per second that one of ``ranks`` reaches in a large matrix product,
    timed here."""
    return float(in_torch(run_matrix_rate, device, ranks, precision))


def in_torch(work: Callable[..., Any], *arguments: object) -> Any:
    """Return what ``work(*arguments)`` returns in a process that has torch loaded: a JSON value."""
    load_torch()
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=send_answer, args=(theirs, work, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        return json.loads(ours.recv_bytes())
    except EOFError:
        raise DeviceError("torch could not be loaded; run autotune doctor, or install torch again") from None
    finally:
        process.join()
        ours.close()


def send_answer(connection: Connection, work: Callable[..., Any], *arguments: object) -> None:
    """Run in a process that has torch loaded."""
    connection.send_bytes(json.dumps(work(*arguments)).encode())


def look_at_model(request: ModelRequest) -> ModelConfig:
    """Return what the ranks build a user's model from, and what was found of it, looked at in a process of its own.

    Raises InputError where it cannot be trained.
    """
    try:
        found: dict[str, Any] = in_torch(run_look, request.model_dump_json())
    except DeviceError:
        raise InputError(
            f"--model {request.source.title}: the process that imported it ended without a word; run it by itself"
        ) from None
    if "refusal" in found:
        raise InputError(f"--model {request.source.title}: {found['refusal']}")
    return ModelConfig.model_validate(found["model"])


def run_look(request: str) -> dict[str, Any]:
    """Runs in a process that has torch loaded."""
    from autotune.pipeline.rank.look import looked_at

    return looked_at(request)


class GpuState(Record):
    """The present state of each visible GPU. ``free_bytes``: None where it refuses a context. ``peers``: whether
    each can reach the memory of each other directly."""

    free_bytes: tuple[NonNegativeInt | None, ...]
    peers: tuple[tuple[bool, ...], ...]


def gpu_state() -> GpuState:
    """Return the GPUs of this host now, asked in a process of its own."""
    return GpuState.model_validate(in_torch(run_gpu_state))


def run_gpu_state() -> dict[str, Any]:
    """Run in a process that has torch loaded."""
    from autotune.pipeline.device.gpus import state

    return state()


def run_collect_environment() -> dict[str, Any]:
    """Run in a process that has torch loaded."""
    from autotune.pipeline.device.collect_env import environment

    return environment()


def run_matrix_rate(device: str, ranks: int, precision: str) -> float:
    """Run in a process that has torch loaded."""
    from autotune.pipeline.device.collect_env import matrix_rate

    return matrix_rate(device, ranks, precision)
