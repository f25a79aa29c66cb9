"""The checks of ``autotune doctor``: everything that a pipeline needs of this host, each as a ``Check``."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from statistics import median

from autotune import DISTRIBUTION
from autotune.disk import refusal
from autotune.errors import AutotuneError
from autotune.pipeline.control.commands import Ping
from autotune.pipeline.control.ranks import RankFailure, Ranks
from autotune.pipeline.control.starting import LEAST_SHARED_BYTES, SHARED_MEMORY, remedy, shared_memory_bytes
from autotune.pipeline.control.survey import GpuState, collect_environment, gpu_state
from autotune.records.job.environment import Environment
from autotune.report.doctor import Check, Checkup
from autotune.report.units import show_bytes, show_seconds

PACKAGE = "autotune/__init__.py"
LEAST_FREE_BYTES = 100 * 2**20
MOST_HELD = 0.1  # of a GPU's memory by others, before they are worth a word
PING_TIMEOUT_S = 90.0
LARGE_BYTES = 16 * 2**20


def examine(python: str | None = None) -> Checkup:
    """Look at devices, torch, memory, the folders that a run writes to, and at two ranks that talk. ``python``: the
    interpreter that has torch, where that is another one."""
    interpreter = python or sys.executable
    try:
        environment = Environment.model_validate(collect_environment(interpreter))
    except AutotuneError as error:
        return Checkup(environment=Environment(), checks=(Check.problem("torch", str(error)),), next_command=None)
    checks = [*folders(), *installation()]
    if environment.device == "cuda":
        checks += [*gpus(environment, gpu_state(interpreter)), shared_memory()]
    else:
        checks += cpu(environment)
    checks.append(round_trip(environment, interpreter))
    return Checkup(environment=environment, checks=tuple(checks), next_command=next_command(environment))


def next_command(environment: Environment) -> str:
    """Return what to run here: one stage for each GPU, or the four of the first example."""
    gpus = len(environment.devices) if environment.device == "cuda" else 0
    blind = environment.unseen_gpu is not None or gpus == 1
    return f"autotune run --layers 48 --stages {gpus if gpus > 1 else 4}{' --device cpu' if blind else ''}"


def folders() -> Iterator[Check]:
    """Return where reports and studies go, and where ranks meet."""
    for name, folder, other in (
        ("this folder", Path.cwd(), "change to another one"),
        ("temporary files", Path(tempfile.gettempdir()), "set TMPDIR"),
    ):
        refused, free = refusal(folder), shutil.disk_usage(folder).free
        if refused is not None:
            yield Check.problem(name, f"cannot write to {folder}: {refused.strerror}; make room or {other}")
        elif free < LEAST_FREE_BYTES:
            yield Check.problem(name, f"{show_bytes(free)} free in {folder}; make room or {other}")
        else:
            yield Check.ok(name, f"{show_bytes(free)} free in {folder}")


def strangers() -> list[str]:
    """Return the name of every other distribution that brings a package called autotune."""
    others = (other for other in distributions() if other.name != DISTRIBUTION)
    return [other.name for other in others if any(str(file) == PACKAGE for file in other.files or ())]


def installation() -> Iterator[Check]:
    """Return what is wrong where another project called autotune, on PyPI, is installed over ours."""
    if others := strangers():
        yield Check.problem(
            "installation",
            f"{' and '.join(others)} on PyPI is another project, and brings a package autotune as well: pip uninstall"
            f" {' '.join(others)}, and install {DISTRIBUTION} again with --force-reinstall --no-deps",
        )


def cpu(environment: Environment) -> Iterator[Check]:
    """Describe a host without a GPU that torch sees."""
    if environment.unseen_gpu is not None:
        yield Check.problem("GPU", f"torch does not see the GPU of this host: {environment.unseen_gpu}")
    cores = environment.cores or 1
    advice = "ranks take turns on it, so pipelining cannot pay; figures hold for this host"
    yield Check.problem("cores", f"one core: {advice}") if cores < 2 else Check.ok("cores", f"{cores} for all ranks")


def gpus(environment: Environment, state: GpuState) -> Iterator[Check]:
    """Describe each GPU, and the way from each to the next."""
    for index, name in enumerate(environment.devices):
        yield gpu(index, name, environment, state.free_bytes[index])
    for index in range(len(environment.devices) - 1):
        way = environment.gpu_links[index][index + 1] if environment.gpu_links else None
        through = f"{way}, " if way else ""
        name = f"GPU {index} to {index + 1}"
        if state.peers[index][index + 1]:
            yield Check.ok(name, f"{through}direct access")
        else:
            yield Check.note(name, f"{through}no direct access: messages go through the host's memory, and take longer")


def gpu(index: int, name: str, environment: Environment, free: int | None) -> Check:
    """Return whether a rank can have all of it."""
    mode = environment.compute_modes[index] if environment.compute_modes else None
    label, whole = f"GPU {index}", environment.gpu_memory_bytes[index]
    if environment.mig and environment.mig[index]:
        return Check.problem(
            label, f"{name} is split (MIG), and a process sees one instance only; nvidia-smi -i {index} -mig 0"
        )
    if mode == "prohibited":
        return Check.problem(label, f"{name}: its compute mode is prohibited; nvidia-smi -i {index} -c DEFAULT")
    if free is None:
        reason = "its compute mode lets in one process at a time; " if mode == "exclusive process" else ""
        return Check.problem(label, f"{name} cannot be used now: {reason}end what runs on it, see nvidia-smi")
    room = f"{show_bytes(free)} of {show_bytes(whole)} free"
    if whole - free > MOST_HELD * whole:
        return Check.problem(label, f"{name}, {room}: end what else runs on it, or give --memory-limit")
    return Check.ok(label, f"{name}, {room}")


def shared_memory(folder: Path = SHARED_MEMORY) -> Check:
    """Look at NCCL's way between GPUs without direct access."""
    free = shared_memory_bytes(folder)
    if free is None or free < LEAST_SHARED_BYTES:
        has = "not there" if free is None else f"{show_bytes(free)} free"
        return Check.problem(str(folder), f"{has}; NCCL may need 1 GiB: start the container with --shm-size=1g")
    return Check.ok(str(folder), f"{show_bytes(free)} free")


def round_trip(environment: Environment, python: str = sys.executable) -> Check:
    """Try two real ranks, and messages between them: over NCCL on GPUs, over gloo on the CPU, by the code of every
    run."""
    device = environment.device or "cpu"
    label = f"two ranks over {'NCCL' if device == 'cuda' else 'gloo'}"
    if device == "cuda" and len(environment.devices) < 2:
        return Check.note(label, "not tried: there is one GPU, and each rank needs its own")
    try:
        with Ranks(2, device, python=python) as ranks:
            short = ranks.ask(ping(1, 20), PING_TIMEOUT_S)[0]
            long = ranks.ask(ping(LARGE_BYTES, 4), PING_TIMEOUT_S)[0]
    except RankFailure as error:
        return Check.problem(label, f"{error.failure.message}; {remedy(device, error.failure)}")
    bytes_s = LARGE_BYTES / max(median(long) - median(short), 1e-9)
    return Check.ok(label, f"there and back in {show_seconds(median(short))}, {show_bytes(bytes_s)}/s")


def ping(size: int, repeats: int) -> Ping:
    """Send a message of ``size`` bytes from rank 0 to 1, and one byte back."""
    return Ping(source=0, target=1, there_bytes=size, back_bytes=1, repeats=repeats)
