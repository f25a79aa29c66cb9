"""From the table of options to Typer: the signature by which it parses a command's words and prints its help."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from autotune.cli.options import COMMANDS
from autotune.settings import REQUIRED, SETTINGS, Option


def add_command(app: typer.Typer, name: str, function: Callable[..., None], panel: str, example: str) -> None:
    """Add ``function`` to ``app`` as the command ``name``; it is called with what the table says the command takes."""

    def command(**given: Any) -> None:
        function(**given)

    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature([parameter(row) for row in COMMANDS[name]])  # type: ignore[attr-defined]
    app.command(name=name, epilog=escaped(example), rich_help_panel=panel)(command)


def parameter(row: Option) -> inspect.Parameter:
    """Return the parameter that Typer reads ``row`` from.

    A setting that is not given is None, so that the config file or the config's own default counts.
    """
    default = None if row is SETTINGS.get(row.name) else row.default
    kind = row.kind if default is not None else row.kind | None
    about: Any = {"help": escaped(row.description), "show_default": False, "metavar": row.metavar or None}
    if row.is_argument:
        info = typer.Argument(**about)
    else:
        about |= {"rich_help_panel": row.panel, "envvar": row.envvar or None, "min": row.minimum}
        info = typer.Option(*row.spellings, **about)
    return inspect.Parameter(
        row.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is REQUIRED else default,
        annotation=Annotated[kind, info],
    )


def escaped(text: str) -> str:
    """Return ``text`` so that Rich prints its brackets as they are."""
    return text.replace("[", "\\[")
