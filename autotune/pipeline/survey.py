"""What is here: devices, cores, memory, versions, as torch and the kernel see them."""

import os
import platform
import re
import socket
import sys
from statistics import median
from typing import Any

import torch

from autotune.pipeline.device import open_device


def environment() -> dict[str, Any]:
    """The fields of an Environment record. ``memory_bytes`` is the smallest device's memory, or the host's."""
    here: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "torch_version": torch.__version__,
        "python_version": sys.version.split()[0],
        "hostname": socket.gethostname(),
        "platform": platform.platform(),
    }
    return here | (gpus() if torch.cuda.is_available() else cpu())


def cpu() -> dict[str, Any]:
    """The host as the one device that all ranks share."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"device": "cpu", "devices": [cpu_name()], "memory_bytes": memory}


def cpu_name() -> str:
    """The processor's own name, from the kernel."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def gpus() -> dict[str, Any]:
    """Every visible GPU, and the versions that decide how fast it is."""
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "device": "cuda",
        "devices": [device.name for device in devices],
        "memory_bytes": min(device.total_memory for device in devices),
        "cuda_version": torch.version.cuda,
        "driver_version": driver_version(),
        "nccl_version": ".".join(map(str, torch.cuda.nccl.version())),  # type: ignore[no-untyped-call]
    }


def driver_version() -> str | None:
    """The version of NVIDIA's kernel driver, such as 550.54.15, from the driver itself; None where it does not tell."""
    try:
        with open("/proc/driver/nvidia/version") as file:
            found = re.search(r"Kernel Module(?: for \w+)?\s+([\d.]+)", file.read())
    except OSError:
        return None
    return found[1] if found else None


def matrix_rate(kind: str, ranks: int, precision: str) -> float:
    """Floating-point operations per second of a square matrix product on the device of one of ``ranks``.

    2 n^3 operations; the median of a few products after an untimed one.
    """
    device, size = open_device(kind, 0, ranks), 4096 if kind == "cuda" else 512
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    matrix = torch.ones(size, size, dtype=types[precision], device=device.torch_device)
    seconds = [device.seconds(lambda: matrix @ matrix) for _ in range(8)]
    return 2 * size**3 / median(seconds[1:])
