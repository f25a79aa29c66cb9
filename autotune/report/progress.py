"""What a run tells on stderr: the header, what it is doing now, warnings. Live on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status


class Progress:
    """A context manager around a run; every method prints to ``console``, which is stderr."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self.console, self.quiet = console, quiet
        self.status: Status | None = None
        self.last = ""

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.quiet:
            self.status = self.console.status("starting")
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.status is not None:
            self.status.stop()

    def header(self, lines: list[str]) -> None:
        """Devices, workload, what will be tried."""
        if not self.quiet:
            for line in lines:
                self.console.print(line, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """A warning, which names its remedy; also when quiet."""
        self.console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def progress(self, text: str, done: float | None) -> None:
        """What is being done now; on a plain stderr one line per new thing, and none per step."""
        text += f" ({done:.0%})" if done is not None else ""
        if self.status is not None:
            self.status.update(text)
        elif not self.quiet and text.split(": step")[0] != self.last:
            self.last = text.split(": step")[0]
            self.console.print(self.last, highlight=False, markup=False)
