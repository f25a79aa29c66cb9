"""The memory that a caching allocator takes from a device beyond the bytes that it hands out."""

from collections.abc import Sequence
from typing import NamedTuple

from autotune.pipeline.control.commands import Primed

SEGMENTS_BYTES = 64 * 2**20
"""Most that torch's allocator leaves unused because it takes memory in segments: of 2 and 20 MiB for small tensors, a
few of each kind, whatever the size of a micro-batch."""


class Fragmentation(NamedTuple):
    """The memory that an allocator takes from a device beyond what it hands out: ``times`` all that is not static, and
    ``segments_bytes``."""

    times: float
    segments_bytes: int

    @staticmethod
    def of(primed: Sequence[Primed], static: Sequence[int]) -> "Fragmentation":
        """Return the most of any rank. What segments alone explain is taken for that: it does not grow with
        micro-batches."""
        most, segments = 1.0, 0
        for one, held in zip(primed, static, strict=True):
            peak = one.peak_memory_bytes or 0
            if one.reserved_bytes is None or peak <= held:
                continue
            unused = min(SEGMENTS_BYTES, max(0, one.reserved_bytes - peak))
            most = max(most, (one.reserved_bytes - unused - held) / (peak - held))
            segments = max(segments, unused)
        return Fragmentation(most, segments)


NONE = Fragmentation(1.0, 0)
"""A device whose allocator keeps nothing back."""
ASSUMED = Fragmentation(1.1, 0)
"""A device on which no real step has shown it."""
