"""What the probe has noted: a file for each process, a line for each step; read while they are written."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PATTERN = "steps-*.jsonl"


class NotedStep(NamedTuple):
    """One step of one rank: its number, when it ended on the host's monotonic clock, and peaks so far.

    ``peak_bytes``: of the allocator on a GPU, else of the resident memory. ``retries``: how often the allocator had to
    give back what it kept.
    """

    rank: int
    number: int
    at_s: float
    peak_bytes: int
    reserved_bytes: int | None
    retries: int


class Notes:
    """The notes of a trial's folder, as far as they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: dict[Path, int] = {}
        self.ends: defaultdict[int, dict[int, float]] = defaultdict(dict)  # by step and rank
        self.last: dict[int, NotedStep] = {}

    def look(self) -> None:
        """Read what has been written since the last look."""
        for path in sorted(self.folder.glob(PATTERN)):
            for step in self._new_steps(path):
                self.ends[step.number][step.rank] = step.at_s
                self.last[step.rank] = step

    def _new_steps(self, path: Path) -> Iterator[NotedStep]:
        """The steps in whole lines that were not read yet."""
        with path.open("rb") as file:
            file.seek(self.read.get(path, 0))
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.read[path] = self.read.get(path, 0) + len(whole)
        for line in whole.splitlines():
            if step := noted_step(line):
                yield step

    @property
    def ranks(self) -> int:
        """Ranks that have noted a step."""
        return len(self.last)

    def finished(self) -> list[float]:
        """Return when each step ended on the last of all ranks; of steps that all ranks have ended."""
        numbers = sorted(number for number, ends in self.ends.items() if len(ends) == self.ranks)
        return [max(self.ends[number].values()) for number in numbers]

    @property
    def peaks(self) -> tuple[int, ...]:
        """By rank, the peak memory so far."""
        return tuple(self.last[rank].peak_bytes for rank in sorted(self.last))

    @property
    def retries(self) -> tuple[int, ...]:
        """By rank, retries of the allocator so far."""
        return tuple(self.last[rank].retries for rank in sorted(self.last))


def noted_step(line: bytes) -> NotedStep | None:
    """Return the step in a line; None where it is none."""
    try:
        found: dict[str, Any] = json.loads(line)
        return NotedStep(
            rank=int(found["rank"]),
            number=int(found["step"]),
            at_s=float(found["t"]),
            peak_bytes=int(found.get("allocated") or found.get("resident") or 0),
            reserved_bytes=int(found["reserved"]) if "reserved" in found else None,
            retries=int(found.get("retries", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
