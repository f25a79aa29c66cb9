"""Who listens to a run: what it does now, what it warns of, what is known by now."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


def ignore(*_: Any) -> None:
    """Do nothing: the listener where nobody listens."""


@dataclass(frozen=True)
class Events:
    """Who listens: ``header(lines)``, ``warn(text)``, ``progress(text, fraction or None)``, ``known(text)``: what is
    known so far."""

    header: Callable[[list[str]], None] = ignore
    warn: Callable[[str], None] = ignore
    progress: Callable[[str, float | None], None] = ignore
    known: Callable[[str], None] = ignore

    def remembering(self, warnings: list[str]) -> "Events":
        """Return the same listeners, and every warning is also added to ``warnings``."""

        def warn(text: str) -> None:
            warnings.append(text)
            self.warn(text)

        return replace(self, warn=warn)
