"""The command line: parse, call, print. ``options`` says what each command takes; a file per group has the commands."""

from autotune.cli.entry import app, main

__all__ = ["app", "main"]
