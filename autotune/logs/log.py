"""A log as it is read, line by line: the steps, the memory and the arguments that it tells of.

Where the format is not known, all are tried, and the first one counts that has read two steps. Where several ranks
print the same steps, the rank that printed most counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from autotune.logs.formats.spec import LogFormat, Role
from autotune.logs.line import ArgumentLine, MemoryLine, StepLine
from autotune.logs.text import tidy

ENOUGH = 2
"""Steps that a format must have read to be taken for the log's."""
FINE = 0.002
"""Rounding, as a share of a step, up to which a printed time is as good as any."""
KEPT_STEPS = 100_000
"""Steps of one rank that are kept; the first ones go when there are more."""


class Step(NamedTuple):
    """One step that a log tells of, or the mean of those since the line before.

    ``arrived_at``: the reader's own clock, None where the log is a file that was there already.
    """

    line: StepLine
    arrived_at: float | None

    def merged(self, other: "Step") -> "Step":
        """Return one step for two lines of the same one: what the first does not say the second may."""
        missing = {name: value for name, value in other.line if value not in (None, 0.0, False)}
        own = {name: value for name, value in self.line if value not in (None, 0.0, False)}
        return Step(StepLine(**(missing | own)), self.arrived_at)


class _Heard:
    """What one format has read of a log."""

    def __init__(self, form: LogFormat) -> None:
        self.form = form
        self.steps: defaultdict[int, list[Step]] = defaultdict(list)
        self.memory: dict[int, MemoryLine] = {}
        self.arguments: dict[Role, str] = {}

    def add(self, said: object, rank: int, arrived_at: float | None) -> None:
        """Keep what a line of ``rank`` says."""
        if isinstance(said, StepLine):
            self.add_step(Step(said, arrived_at), said.rank if said.rank is not None else rank)
        elif isinstance(said, MemoryLine):
            self.add_memory(said, said.rank if said.rank is not None else rank)
        elif isinstance(said, ArgumentLine) and said.name in self.form.arguments:
            self.arguments.setdefault(self.form.arguments[said.name], said.value)

    def add_step(self, step: Step, rank: int) -> None:
        """Keep a step, unless its line repeats the one before, which it then completes."""
        steps = self.steps[rank]
        number, last = step.line.number, steps[-1] if steps else None
        if number is None and not step.line.says_time and last is not None:
            steps[-1] = last.merged(step)  # a line of losses beside a progress bar
        elif last is not None and number is not None and number == last.line.number:
            steps[-1] = last.merged(step)
        else:
            steps.append(step)
            del steps[:-KEPT_STEPS]

    def add_memory(self, line: MemoryLine, rank: int) -> None:
        """Keep the highest peak of a rank."""
        before = self.memory.get(rank, MemoryLine())
        self.memory[rank] = MemoryLine(
            rank=rank,
            allocated_bytes=max(line.allocated_bytes or 0, before.allocated_bytes or 0) or None,
            reserved_bytes=max(line.reserved_bytes or 0, before.reserved_bytes or 0) or None,
        )

    @property
    def chief(self) -> list[Step]:
        """The steps of the rank that printed most."""
        return max(self.steps.values(), key=len, default=[])


class Log:
    """A log while it is read. ``formats``: those that it may be in."""

    def __init__(self, formats: Sequence[LogFormat]) -> None:
        self.heard = [_Heard(form) for form in formats]
        self.lines = 0

    def feed(self, line: str, arrived_at: float | None = None) -> None:
        """Read one line, which arrived at a moment of the reader's clock."""
        text, rank = tidy(line)
        self.lines += 1
        for heard in self.heard:
            for said in heard.form.read(text):
                heard.add(said, rank or 0, arrived_at)
        settled = next((heard for heard in self.heard if len(heard.chief) >= ENOUGH), None)
        if settled is not None and len(self.heard) > 1:
            self.heard = [settled]

    @property
    def best(self) -> _Heard:
        """The format that has read most steps so far, the first of those that read alike."""
        return max(self.heard, key=lambda heard: len(heard.chief))

    @property
    def form(self) -> LogFormat | None:
        """The format of the log; None where nothing has been read."""
        return self.best.form if self.best.chief else None

    @property
    def steps(self) -> list[Step]:
        """The steps, in their order."""
        return self.best.chief

    @property
    def memory(self) -> dict[int, MemoryLine]:
        """By rank, its peak memory."""
        return self.best.memory

    @property
    def arguments(self) -> dict[Role, str]:
        """The launcher's own arguments, as text."""
        return self.best.arguments


class StepShape(NamedTuple):
    """What turns rates into seconds: sequences of a step of all replicas, tokens of one, devices; None: not known."""

    sequences: int | None = None
    tokens: int | None = None
    devices: int | None = None


def read_lines(lines: Iterable[str], formats: Sequence[LogFormat]) -> Log:
    """Return the log that ``lines`` are, all of which are there already."""
    log = Log(formats)
    for line in lines:
        log.feed(line)
    return log


def step_seconds(steps: Sequence[Step], shape: StepShape) -> list[float]:
    """Return the seconds of each step but broken ones and those of which nothing tells: as printed where that is fine
    enough, else from rates, else from the moments that lines arrive at or give themselves, else as printed."""
    found = []
    before: Step | None = None
    for step in steps:
        seconds = seconds_of(step, before, shape)
        if seconds is not None and seconds > 0 and not step.line.is_broken:
            found.append(seconds)
        before = step
    return found


def seconds_of(step: Step, before: Step | None, shape: StepShape) -> float | None:
    """Return the seconds of one step; ``before``: the line before it, None for the first."""
    line = step.line
    if line.seconds and line.half_width_s <= FINE * line.seconds:
        return line.seconds
    rated = from_rates(line, shape) if line.seconds is None else None
    if rated is not None:
        return rated
    for moments in (
        (before.arrived_at, step.arrived_at) if before else (None, None),
        (before.line.written_at, line.written_at) if before else (None, None),
    ):
        passed = between(before, step, *moments)
        if passed is not None and (not line.seconds or abs(passed - line.seconds) <= 3 * line.half_width_s):
            return passed
    return line.seconds


def between(before: Step | None, step: Step, begin: float | None, end: float | None) -> float | None:
    """Return the seconds of one step between two lines; None where they do not tell."""
    if before is None or begin is None or end is None or end <= begin:
        return None
    first, last = before.line.number, step.line.number
    count = last - first if first is not None and last is not None else 1
    return (end - begin) / count if count > 0 else None


def from_rates(line: StepLine, shape: StepShape) -> float | None:
    """Return the seconds of a step from how much of it is done in a second."""
    sequences = line.sequences or shape.sequences
    if line.sequences_s and sequences:
        return sequences / line.sequences_s
    if line.tokens_s and shape.tokens:
        return shape.tokens / line.tokens_s
    if line.tokens_device_s and shape.tokens and shape.devices:
        return shape.tokens / (line.tokens_device_s * shape.devices)
    return None
