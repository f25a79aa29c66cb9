"""Who listens to a run: what it does now, what it warns of, what is known by now."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Events(Protocol):
    """What a run tells while it goes on, each kind of event by a method of its own: from any depth, to whoever listens.

    Texts are for people: what a listener has to know beside them (a fraction, a step's number) is an argument.
    """

    def header(self, lines: list[str]) -> None:
        """Hear what will be done, on what: once, before it begins."""

    def progress(self, text: str, done: float | None = None) -> None:
        """Hear what is being done now, and which part of it is done, 0 to 1, where that is known."""

    def step(self, candidate: str, number: int, seconds: float) -> None:
        """Hear that a candidate of this label has run a timed step, counted from 1."""

    def known(self, text: str) -> None:
        """Hear what is known by now."""

    def warn(self, text: str) -> None:
        """Hear a warning, which names its remedy."""


class Silent:
    """Events to which nobody listens."""

    def header(self, lines: list[str]) -> None:
        """Do nothing."""

    def progress(self, text: str, done: float | None = None) -> None:
        """Do nothing."""

    def step(self, candidate: str, number: int, seconds: float) -> None:
        """Do nothing."""

    def known(self, text: str) -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Forwarded:
    """Events that are handed on to another listener: the base of those that do something beside."""

    to: Events

    def header(self, lines: list[str]) -> None:
        """Hand it on."""
        self.to.header(lines)

    def progress(self, text: str, done: float | None = None) -> None:
        """Hand it on."""
        self.to.progress(text, done)

    def step(self, candidate: str, number: int, seconds: float) -> None:
        """Hand it on."""
        self.to.step(candidate, number, seconds)

    def known(self, text: str) -> None:
        """Hand it on."""
        self.to.known(text)

    def warn(self, text: str) -> None:
        """Hand it on."""
        self.to.warn(text)


@dataclass(frozen=True)
class Remembered(Forwarded):
    """Events that are handed on; every warning is also added to ``warnings``."""

    warnings: list[str]

    def warn(self, text: str) -> None:
        """Keep it, and hand it on."""
        self.warnings.append(text)
        self.to.warn(text)


class EventKind(StrEnum):
    """Kinds of events."""

    HEADER = "header"  # what will be done, on what
    PROGRESS = "progress"  # what is being done now
    STEP = "step"  # a timed step of a candidate
    KNOWN = "known"  # what is known by now
    WARNING = "warning"


@dataclass(frozen=True)
class Event:
    """One thing that a run tells, for people in ``text``; what is not of its kind is None."""

    kind: EventKind
    """What it is."""
    text: str
    """The words, one line or several."""
    done: float | None = None
    """Of progress, the part that is done, 0 to 1, where that is known."""
    candidate: str | None = None
    """Of a step, the label of its candidate, such as ``m = 8 1F1B``."""
    number: int | None = None
    """Of a step, its number, counted from 1."""
    seconds: float | None = None
    """Of a step, how long it took."""

    def __str__(self) -> str:
        return self.text


Hear = Callable[[Event], object]
"""Called with every event of a run."""


@dataclass(frozen=True)
class Called:
    """Events that a function hears, one by one."""

    hear: Hear

    def header(self, lines: list[str]) -> None:
        """Tell what will be done."""
        self.hear(Event(EventKind.HEADER, "\n".join(lines)))

    def progress(self, text: str, done: float | None = None) -> None:
        """Tell what is being done."""
        self.hear(Event(EventKind.PROGRESS, text, done=done))

    def step(self, candidate: str, number: int, seconds: float) -> None:
        """Tell of a timed step."""
        text = f"{candidate}: step {number}, {seconds:.3f} s"
        self.hear(Event(EventKind.STEP, text, candidate=candidate, number=number, seconds=seconds))

    def known(self, text: str) -> None:
        """Tell what is known by now."""
        self.hear(Event(EventKind.KNOWN, text))

    def warn(self, text: str) -> None:
        """Tell a warning."""
        self.hear(Event(EventKind.WARNING, text))
