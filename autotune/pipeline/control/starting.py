"""What a start of ranks takes: their server early, conditions of the host, and the remedy where they did not start.
Imports no torch."""

import os
import tempfile
from pathlib import Path

from autotune import disk
from autotune.config import Config
from autotune.errors import DeviceError
from autotune.pipeline.control.server import server
from autotune.records.failure import Failure

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_BYTES = 2**30
"""NCCL's channels between GPUs that cannot reach each other directly lie in shared memory, some MiB for each; NVIDIA's
advice for containers is this much, and Docker's default is 64 MiB."""


def start_early(config: Config) -> None:
    """Start the server of a run that will need it, and do not wait: it takes longest by far, and loads torch on a core
    of its own while the controller loads the rest."""
    if config.rendezvous is None and not config.command:
        server(config.interpreter)


def shared_memory_bytes(folder: Path = SHARED_MEMORY) -> int | None:
    """Return what is free in shared memory; None where there is none."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize


def remedy(device: str, failure: Failure, folder: Path = SHARED_MEMORY) -> str:
    """Return what to try where ranks on ``device`` could not start, or could not reach each other."""
    if device != "cuda" or failure.kind not in ("crash", "hang"):
        return "see autotune doctor"
    free = shared_memory_bytes(folder)
    if free is None or free < LEAST_SHARED_BYTES:
        room = f"has {free / 2**20:.0f} MiB free" if free is not None else "is not there"
        return f"{folder} {room}, and NCCL may need 1 GiB: start the container with --shm-size=1g; see autotune doctor"
    return (
        "where GPUs cannot reach each other, as in some virtual machines, NCCL_P2P_DISABLE=1 in the environment helps;"
        " see autotune doctor"
    )


def not_started(device: str, failure: Failure, folder: Path = SHARED_MEMORY) -> DeviceError:
    """Return the error that ends a run whose ranks did not start."""
    here = Path(tempfile.gettempdir())  # of the ranks' rendezvous and logs: without room they exit silently
    if refused := disk.refusal(here):
        way_out = disk.remedy(refused, "folder with TMPDIR")
        return DeviceError(f"the ranks did not start: cannot write in {here}: {refused.strerror}; {way_out}")
    return DeviceError(f"the ranks did not start: {failure.message}; {remedy(device, failure, folder)}")
