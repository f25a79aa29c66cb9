"""The facts of GPUs that NVIDIA's management library tells and torch does not: their settings, and how they are wired.

Called through ctypes, as ``torch.cuda`` does where it counts devices. Signatures and numbers are those of ``nvml.h``:
every function returns 0 or an error, and writes its answer behind the last pointer.
"""

from ctypes import CDLL, byref, c_uint, c_void_p
from typing import Any

CLOCK_SM, CLOCK_MEMORY = 1, 2  # nvmlClockType_t
P2P_NVLINK, P2P_OK = 2, 0  # nvmlGpuP2PCapsIndex_t, nvmlGpuP2PStatus_t
COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}  # nvmlComputeMode_t
ANCESTORS = {  # nvmlGpuTopologyLevel_t
    0: "one board",
    10: "one PCIe switch",
    20: "PCIe switches",
    30: "PCIe host bridge",
    40: "one NUMA node",
    50: "between NUMA nodes",
}


class Nvml:
    """The library; every question is answered by None where the library, the driver or the GPU cannot tell."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def _asks(self, name: str, *arguments: object, answers: int = 1) -> tuple[int, ...] | None:
        """Call ``name``, which writes ``answers`` numbers behind pointers; None where it fails or is not there."""
        values = [c_uint() for _ in range(answers)]
        function = getattr(self._library, name, None)  # older drivers lack newer functions
        if function is None or function(*arguments, *map(byref, values)) != 0:
            return None
        return tuple(value.value for value in values)

    def gpu(self, uuid: str) -> c_void_p | None:
        """Return the handle of a GPU, or of a part of one (MIG), by the bare UUID that torch gives."""
        function = getattr(self._library, "nvmlDeviceGetHandleByUUID", None)
        for kind in ("GPU", "MIG"):
            handle = c_void_p()
            if function is not None and function(f"{kind}-{uuid}".encode(), byref(handle)) == 0:
                return handle
        return None

    def power_limit_w(self, gpu: c_void_p) -> float | None:
        """Return the limit in force, the lowest of all that are set, in watts."""
        found = self._asks("nvmlDeviceGetEnforcedPowerLimit", gpu)
        return found[0] / 1e3 if found else None

    def max_clock_mhz(self, gpu: c_void_p, kind: int) -> int | None:
        """Return the highest clock of ``kind`` in MHz."""
        found = self._asks("nvmlDeviceGetMaxClockInfo", gpu, kind)
        return found[0] if found else None

    def is_mig(self, gpu: c_void_p) -> bool | None:
        """Return whether the GPU is split into instances."""
        found = self._asks("nvmlDeviceGetMigMode", gpu, answers=2)  # now, and after the next reset
        return bool(found[0]) if found else None

    def compute_mode(self, gpu: c_void_p) -> str | None:
        """Return who may use the GPU, in the words of ``nvidia-smi``."""
        found = self._asks("nvmlDeviceGetComputeMode", gpu)
        return COMPUTE_MODES.get(found[0]) if found else None

    def link(self, gpu: c_void_p, other: c_void_p) -> str | None:
        """Return the shortest way between two GPUs."""
        if self._asks("nvmlDeviceGetP2PStatus", gpu, other, P2P_NVLINK) == (P2P_OK,):
            return "NVLink"
        found = self._asks("nvmlDeviceGetTopologyCommonAncestor", gpu, other)
        return ANCESTORS.get(found[0]) if found else None


def open_nvml() -> Nvml | None:
    """Return the library of the installed driver; None where there is none that works."""
    try:
        library = CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return Nvml(library) if library.nvmlInit_v2() == 0 else None
