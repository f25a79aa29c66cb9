"""What torch sees on this host, asked in a process of its own so that the controller needs no torch."""

import sys
from dataclasses import asdict, dataclass
from typing import Any

from autotune.errors import DeviceError, InputError
from autotune.pipeline.control.server import in_torch
from autotune.records.job.workload import ModelConfig, ModelRequest
from autotune.records.plain import NonNegativeInt, Plain, decode


def collect_environment(python: str = sys.executable) -> dict[str, Any]:
    """Return the fields of an Environment that torch and the kernel tell, under the interpreter ``python``."""
    answer: dict[str, Any] = in_torch("autotune.pipeline.device.collect_env:environment", python=python)
    return answer


def matrix_rate(device: str, ranks: int, precision: str, python: str = sys.executable) -> float:
    """Return floating-point operations per second that one of ``ranks`` reaches in a large matrix product,
    timed here."""
    place = "autotune.pipeline.device.collect_env:matrix_rate"
    return float(in_torch(place, device, ranks, precision, python=python))


def look_at_model(request: ModelRequest, python: str = sys.executable) -> ModelConfig:
    """Return what the ranks build a user's model from, and what was found of it, looked at in a process of its own.

    Raises InputError where it cannot be trained.
    """
    try:
        found = in_torch("autotune.pipeline.rank.look:looked_at", asdict(request), python=python)
    except DeviceError:
        raise InputError(
            f"--model {request.source.title}: the process that imported it ended without a word; run it by itself"
        ) from None
    if "refusal" in found:
        raise InputError(f"--model {request.source.title}: {found['refusal']}")
    return decode(ModelConfig, found["model"])


@dataclass(frozen=True, kw_only=True)
class GpuState(Plain):
    """The present state of each visible GPU. ``free_bytes``: None where it refuses a context. ``peers``: whether
    each can reach the memory of each other directly."""

    free_bytes: tuple[NonNegativeInt | None, ...]
    peers: tuple[tuple[bool, ...], ...]


def gpu_state(python: str = sys.executable) -> GpuState:
    """Return the GPUs of this host now, asked in a process of its own."""
    return decode(GpuState, in_torch("autotune.pipeline.device.gpus:state", python=python))
