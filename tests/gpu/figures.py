"""What the tests on GPUs measured, for the page that they print at their end."""

import platform
from importlib.util import find_spec

import torch

from autotune.report.units import show_bytes

IS_EMULATED = find_spec("emulated_cuda") is not None
"""Whether the GPUs are those of tests/emulated, which have no speed."""
FIGURES: dict[str, str] = {}


def note(name: str, figure: str) -> None:
    """Puts a measured figure on the page."""
    FIGURES[name] = figure


def page() -> list[str]:
    """The devices and versions, then every figure."""
    facts = {
        "devices": "; ".join(
            f"{device.name}, {show_bytes(device.total_memory)}"
            for device in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "NCCL": ".".join(map(str, torch.cuda.nccl.version())),
        "host": f"Python {platform.python_version()}, {platform.platform()}",
    }
    if IS_EMULATED:
        facts["emulated"] = "bytes are those of torch's allocator; times mean nothing"
    return [f"{name:24} {figure}" for name, figure in (facts | FIGURES).items()]
