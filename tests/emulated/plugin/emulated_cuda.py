"""Loads what torch does not load by itself; torch calls ``load`` at the end of its own import."""

import ctypes
from pathlib import Path

LIBRARIES = Path(__file__).parent / "nvidia" / "cu13" / "lib"
NAMES = (
    "libcuda.so.1",  # this and the next are looked for by name later, and then found because they are loaded
    "libnvidia-ml.so.1",
    "libemulated_operators.so",
)


def load() -> None:
    """Takes the place of torch's CUDA kernels, which nothing here could run."""
    for name in NAMES:
        ctypes.CDLL(str(LIBRARIES / name))
