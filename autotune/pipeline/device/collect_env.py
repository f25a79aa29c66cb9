"""The environment of this host: devices, cores, memory, versions, as torch and the kernel see them."""

import os
import platform
import socket
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch

from autotune.pipeline.device.device import open_device
from autotune.pipeline.device.gpus import ROOT, gpus, unseen_gpu


def environment(root: Path = ROOT) -> dict[str, Any]:
    """Return the fields of an Environment record. ``memory_bytes`` is the smallest device's memory, or the host's.
    ``root``: where /dev and /proc are looked for."""
    return host() | (gpus(root) if torch.cuda.is_available() else cpu() | {"unseen_gpu": unseen_gpu(root)})


def host() -> dict[str, Any]:
    """Return what is the same whatever device of the host computes."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "torch_version": torch.__version__,
        "python_version": sys.version.split()[0],
        "hostname": socket.gethostname(),
        "platform": platform.platform(),
    }


def cpu() -> dict[str, Any]:
    """Return the host as the one device that all ranks share."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"device": "cpu", "devices": [cpu_name()], "memory_bytes": memory}


def cpu_name() -> str:
    """Return the processor's own name, from the kernel."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def matrix_rate(kind: str, ranks: int, precision: str) -> float:
    """Return floating-point operations per second of a square matrix product on the device of one of ``ranks``.

    2 n^3 operations; the median of a few products after an untimed one.
    """
    device, size = open_device(kind, 0, ranks), 4096 if kind == "cuda" else 512
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    matrix = torch.randn(size, size, device=device.torch_device).to(types[precision])  # zeros would draw less power
    seconds = [device.seconds(lambda: matrix @ matrix) for _ in range(8)]
    return 2 * size**3 / median(seconds[1:])
