"""The output of commands: the result on stdout, progress and notes on stderr."""

import json
import sys
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 160


def console(stderr: bool = False) -> "Console":
    """Return the console of stdout or stderr; a pipe has room for ``PIPE_COLUMNS`` instead of 80."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else PIPE_COLUMNS
    return Console(stderr=stderr, width=width)


def print_json(record: Any) -> None:
    """Write one record, or plain JSON values, to stdout."""
    document = record if isinstance(record, dict) else record.model_dump(mode="json", by_alias=True)
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_notes(notes: Iterable[str]) -> None:
    """Write what the user should know of a prediction to stderr, a line each."""
    for note in notes:
        console(stderr=True).print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def profile_template() -> str:
    """Return the skeleton of a profile that a user fills in."""
    return (resources.files("autotune.records") / "profile_template.json").read_text()
