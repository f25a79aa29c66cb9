"""The GPUs of this host, as torch and NVIDIA's driver see them, and why torch sees none where there is one."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autotune.pipeline.device.nvml import CLOCK_MEMORY, CLOCK_SM, Nvml, open_nvml

ROOT = Path("/")


def gpus(root: Path = ROOT) -> dict[str, Any]:
    """Return the fields of an Environment for every visible GPU, and the versions that decide how fast it is."""
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    memory = [device.total_memory for device in devices]
    return {
        "device": "cuda",
        "devices": [device.name for device in devices],
        "memory_bytes": min(memory),
        "gpu_memory_bytes": memory,
        "cuda_version": torch.version.cuda,
        "driver_version": driver_version(root),
        "nccl_version": ".".join(map(str, torch.cuda.nccl.version())),  # type: ignore[no-untyped-call]
        "mps": is_mps_running(root, os.environ),
        **settings([str(device.uuid) for device in devices], open_nvml()),
    }


def settings(uuids: list[str], nvml: Nvml | None) -> dict[str, Any]:
    """Return the UUIDs and, as far as ``nvml`` can tell of any GPU, what else makes two of one model differ."""
    found: dict[str, list[Any]] = {"gpu_uuids": uuids}
    handles = [nvml.gpu(uuid) for uuid in uuids] if nvml else []
    known = [handle for handle in handles if handle is not None]
    if nvml is None or len(known) < len(uuids):
        return found
    links = [[None if gpu is other else nvml.link(gpu, other) for other in known] for gpu in known]
    told: dict[str, list[Any]] = {
        "power_limits_w": [nvml.power_limit_w(gpu) for gpu in known],
        "sm_clocks_mhz": [nvml.max_clock_mhz(gpu, CLOCK_SM) for gpu in known],
        "memory_clocks_mhz": [nvml.max_clock_mhz(gpu, CLOCK_MEMORY) for gpu in known],
        "mig": [nvml.is_mig(gpu) for gpu in known],
        "compute_modes": [nvml.compute_mode(gpu) for gpu in known],
    }
    found |= {name: values for name, values in told.items() if any(value is not None for value in values)}
    return found | ({"gpu_links": links} if any(way for row in links for way in row) else {})


def state() -> dict[str, Any]:
    """Return the fields of a GpuState. To ask a GPU for its free memory takes a context on it, which may be refused."""
    count = torch.cuda.device_count()
    free: list[int | None] = []
    for index in range(count):
        try:
            free.append(torch.cuda.mem_get_info(index)[0])
        except RuntimeError:
            free.append(None)
    peers = [[i != j and torch.cuda.can_device_access_peer(i, j) for j in range(count)] for i in range(count)]
    return {"free_bytes": free, "peers": peers}


def driver_version(root: Path = ROOT) -> str | None:
    """Return the version of NVIDIA's kernel driver, such as 550.54.15, from the driver itself; None where it does not
    tell."""
    try:
        words = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module(?: for \w+)?\s+([\d.]+)", words)
    return found[1] if found else None


def is_mps_running(root: Path, environment: Mapping[str, str]) -> bool:
    """Return whether NVIDIA's Multi-Process Service has its control pipe where its clients look for it."""
    folder = Path(environment.get("CUDA_MPS_PIPE_DIRECTORY", root / "tmp/nvidia-mps"))
    return (folder / "control").exists()


def has_gpu(root: Path) -> bool:
    """Return whether the host has an NVIDIA GPU with a driver, whatever torch sees."""
    listed = root / "proc/driver/nvidia/gpus"
    return (root / "dev/nvidia0").exists() or (listed.is_dir() and any(listed.iterdir()))


def unseen_gpu(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return why torch sees no GPU though this host has one, and what to do; None where there is none.

    To be asked only where torch sees none.
    """
    if not has_gpu(root):
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a build of torch for CUDA"
    if "CUDA_VISIBLE_DEVICES" in environment:
        value = environment["CUDA_VISIBLE_DEVICES"]
        return f"CUDA_VISIBLE_DEVICES is {value!r}; unset it, or let it name GPUs that are there"
    driver = driver_version(root) or "of unknown version"
    words = f": {complaint()}" if complaint() else ""
    return (
        f"the driver {driver} does not run the CUDA {torch.version.cuda} of torch {torch.__version__}{words}; update"
        " the driver, or install a build of torch for an older CUDA"
    )


def complaint() -> str | None:
    """Return the first sentence of what torch says when CUDA is asked for."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split(". ")[0].rstrip(".") or None
    return None
