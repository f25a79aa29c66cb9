"""A log format: how its lines are read, and what its launcher calls the numbers that a step is made of."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autotune.logs.line import MemoryLine, Said


class Role(StrEnum):
    """What an argument of a launcher is to a step."""

    MICRO_BATCH_SIZE = "micro_batch_size"
    MICRO_BATCHES = "micro_batches"
    GLOBAL_BATCH = "global_batch"  # of all replicas
    REPLICA_BATCH = "replica_batch"  # of one replica
    DATA_PARALLEL = "data_parallel"
    STAGES = "stages"
    VIRTUAL_STAGES = "virtual_stages"
    SCHEDULE = "schedule"
    SEQ_LEN = "seq_len"
    DEVICES = "devices"
    LAYERS = "layers"
    HIDDEN = "hidden"
    HEADS = "heads"
    VOCAB = "vocab"


Reader = Callable[[str], Said | None]


@dataclass(frozen=True)
class LogFormat:
    """One format: its ``name``, the ``readers`` of a line, each of one kind of thing, and the ``arguments`` by the
    launcher's own names.

    ``marks``: a line of the format has one of them; looking for them is quick, and most lines of a log have none.
    ``by_arrival``: lines say no time, so that the moments at which they arrive do.
    """

    name: str
    readers: tuple[Reader, ...]
    arguments: Mapping[str, Role] = field(default_factory=dict)
    marks: tuple[str, ...] = ("",)
    by_arrival: bool = False

    def read(self, line: str) -> list[Said]:
        """Return all that a line says in this format; nothing where it is none of its lines."""
        if not any(mark in line for mark in self.marks):
            return []
        return [said for reader in self.readers if (said := reader(line)) is not None]


def picked(pattern: re.Pattern[str], line: str) -> str | None:
    """Return the first group of ``pattern`` in the line."""
    match = pattern.search(line)
    return match[1] if match else None


def memory_line(pattern: re.Pattern[str], unit: float) -> Callable[[str], MemoryLine | None]:
    """Return the reader of lines whose groups ``rank``, ``allocated`` and ``reserved``, as far as the pattern has them,
    are memory in ``unit`` bytes."""

    def read(line: str) -> MemoryLine | None:
        match = pattern.search(line)
        if match is None:
            return None
        groups = match.groupdict()

        def held(name: str) -> int | None:
            text = groups.get(name)
            return round(float(text) * unit) if text else None

        rank = groups.get("rank")
        return MemoryLine(
            rank=int(rank) if rank else None, allocated_bytes=held("allocated"), reserved_bytes=held("reserved")
        )

    return read
