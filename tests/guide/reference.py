"""The pages of the guide that are made from the code: options, schema and exit codes. ``make guide`` writes them."""

from collections.abc import Iterator
from textwrap import fill
from typing import Any

from typer.main import get_command

from autotune.cli import app
from autotune.cli.options import COMMANDS
from autotune.cli.reference import schema_of
from autotune.errors import AutotuneError
from autotune.settings import REQUIRED, Option
from tests.guide.manual import FOLDER

MADE = "This page is made from the code by `make guide`."
SCHEMAS = {
    "config": "a config file",
    "profile": "profile.json",
    "report": "report.json",
    "scale": "what `autotune scale --json` prints",
}


def cell(text: str) -> str:
    """``text`` as a table of Markdown takes it."""
    return " ".join(text.replace("|", r"\|").split())


# --- options ------------------------------------------------------------------------------------------------------


def options_page() -> str:
    """Every command with its arguments and flags, by panel."""
    lines = ["# Options", "", f"Every command and what it takes, as `--help` shows it. {MADE}"]
    lines += [
        "Every flag of `autotune run` but `--config`, `--dry-run`, `--json` and `--quiet` is also a key of a config"
    ]
    lines += ["file, written with underscores: `--seq-len` is `seq_len`."]
    for name, command in get_command(app).commands.items():
        lines += ["", f"## autotune {name}", "", command.help, "", command.epilog.replace("\\[", "[")]
        for panel, rows in panels(COMMANDS[name]).items():
            lines += ["", f"### {panel}", "", "| option | value | meaning | default |", "| --- | --- | --- | --- |"]
            lines += [f"| {' | '.join(map(cell, columns(row)))} |" for row in rows]
    return "\n".join(lines) + "\n"


def panels(rows: tuple[Option, ...]) -> dict[str, list[Option]]:
    """The rows by the heading that they stand under."""
    found: dict[str, list[Option]] = {}
    for row in rows:
        found.setdefault("Arguments" if row.is_argument else row.panel, []).append(row)
    return found


def columns(row: Option) -> tuple[str, str, str, str]:
    """The cells of one option."""
    names = {int: "number", str: "text", bool: "", float: "number"}
    value = "" if row.is_argument else row.metavar or names[row.kind]
    spelled = f"`{row.metavar}`" if row.is_argument else ", ".join(f"`{one}`" for one in row.spellings)
    default = "required" if row.default is REQUIRED else row.shown_default
    variable = f" The variable {row.envvar} sets it, too." if row.envvar else ""
    return spelled, value, row.help + variable, default


# --- schemas ------------------------------------------------------------------------------------------------------


def schema_page() -> str:
    """Every record of the JSON files, property by property."""
    lines = ["# Schemas", "", f"`autotune schema report` and so on print the same as JSON Schema. {MADE}"]
    lines += ["Seconds and bytes are the units where a name does not say another one."]
    seen: set[str] = set()
    for name, what in SCHEMAS.items():
        schema = schema_of(name)
        records = {schema["title"]: schema, **schema.get("$defs", {})}
        lines += ["", f"## {name}: {what}"]
        for title, record in records.items():
            if title not in seen and "properties" in record:
                lines += ["", f"### {title}", "", *wrapped(record.get("description", ""))]
                lines += ["", "| field | type | meaning |", "| --- | --- | --- |", *properties(record)]
                seen.add(title)
    return "\n".join(lines) + "\n"


def wrapped(text: str) -> list[str]:
    """A docstring as paragraphs of Markdown, no line wider than the code."""
    paragraphs = [" ".join(one.split()) for one in text.replace("``", "`").split("\n\n")]
    return "\n\n".join(fill(one, 120, break_on_hyphens=False) for one in paragraphs).splitlines()


def properties(record: dict[str, Any]) -> Iterator[str]:
    """A line for each property."""
    for name, about in record["properties"].items():
        required = "" if name in record.get("required", ()) else ", optional"
        meaning = cell(about.get("description", "").replace("``", "`"))
        yield f"| `{name}` | {cell(type_of(about) + required)} | {meaning} |"


def type_of(about: dict[str, Any]) -> str:
    """``integer``, ``list of Link``, ``number or null``."""
    if "$ref" in about:
        return str(about["$ref"].rpartition("/")[2])
    if "anyOf" in about:
        return " or ".join(type_of(one) for one in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{one}`" for one in about["enum"])
    if "const" in about:
        return f"`{about['const']}`"
    if about.get("type") == "array":
        return f"list of {type_of(about['items'])}" if "items" in about else "list"
    return str(about.get("type", "any"))


# --- exit codes ---------------------------------------------------------------------------------------------------


def exit_codes_page() -> str:
    """What a command's exit code says, from the tree of errors."""
    codes = {0: "done", 1: "a bug in autotune, with a traceback"}
    codes |= {error.exit_code: (error.__doc__ or "").rstrip(".") for error in AutotuneError.__subclasses__()}
    lines = ["# Exit codes", "", f"stdout carries the result; progress, warnings and errors go to stderr. {MADE}", ""]
    lines += ["| code | meaning |", "| --- | --- |"]
    lines += [f"| {code} | {cell(meaning.replace('``', '`'))} |" for code, meaning in sorted(codes.items())]
    return "\n".join(lines) + "\n"


PAGES = {"options": options_page, "schema": schema_page, "exit-codes": exit_codes_page}


def main() -> None:
    """Write the pages."""
    for topic, make in PAGES.items():
        (FOLDER / f"{topic}.md").write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
