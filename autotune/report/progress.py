"""The progress of a run on stderr: the header, what it does now, what it knows by now, warnings.

Two lines that stay in their place on a terminal, plain lines elsewhere.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from autotune.report.cost import minutes

EARLY = 0.1  # of the work; what is left is not foretold before so much is done


class Progress:
    """The ``Events`` of a run, and a context manager around it; every method prints to ``console``, which is stderr."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self.console, self.quiet = console, quiet
        self.status: Status | None = None
        self.doing, self.known_by_now, self.printed = "starting", "", ""
        self.begun: float | None = None  # when what has a fraction began

    def __enter__(self) -> Self:
        # A dumb terminal cannot go back to a line, so it gets the plain ones.
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet:
            self.status = self.console.status(self._both())
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.status is not None:
            self.status.stop()

    def _both(self) -> Text:
        """The two lines, cut to the terminal, so that they never wrap; the spinner takes two columns of the first."""
        room = max(20, self.console.width - 3)
        lines = [line if len(line) <= room else line[: room - 1] + "…" for line in (self.doing, self.known_by_now)]
        return Text("\n  ".join(line for line in lines if line))

    def header(self, lines: list[str]) -> None:
        """Show devices, workload, and what will be tried."""
        if not self.quiet:
            for line in lines:
                self.console.print(line, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Show a warning, which names its remedy; also when quiet."""
        wraps = not self.console.is_terminal
        self.console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=wraps)

    def progress(self, text: str, done: float | None = None) -> None:
        """Show what is being done now."""
        doing = text + (f" ({done:.0%}{self._left(done)})" if done is not None else "")
        self._do(doing, plain=doing)

    def step(self, candidate: str, number: int, seconds: float) -> None:
        """Show a timed step; on a plain stderr one line for all steps of a visit."""
        self._do(f"{candidate}: step {number}, {seconds:.3f} s", plain=candidate)

    def _do(self, doing: str, plain: str) -> None:
        """Show what is being done now, on a terminal or, in its ``plain`` form, elsewhere."""
        self.doing = doing
        if self.status is not None:
            self.status.update(self._both())
        else:
            self._print(plain)

    def _left(self, done: float) -> str:
        """The time that it may still take, once enough is done to tell."""
        now = time.monotonic()
        self.begun = now if self.begun is None or not done else self.begun
        return f", about {minutes((now - self.begun) * (1 - done) / done)} left" if done > EARLY else ""

    def known(self, text: str) -> None:
        """Show what is known by now."""
        self.known_by_now = text
        if self.status is not None:
            self.status.update(self._both())
        else:
            self._print(f"  {text}")

    def _print(self, line: str) -> None:
        """A plain line, unless it is the last one again."""
        if not self.quiet and line != self.printed:
            self.printed = line
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
