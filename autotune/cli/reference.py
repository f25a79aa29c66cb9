"""The commands that tell about autotune and the machine: doctor, guide and schema."""

from typing import Any

from autotune.cli.output import console, print_json


def doctor(python: str | None, json_output: bool) -> None:
    """Say what is here: devices, torch, memory, and what would keep a run from working."""
    from autotune.checkup import examine
    from autotune.report.doctor import print_checkup

    checkup = examine(python)
    print_json(checkup.model_dump(mode="json")) if json_output else print_checkup(checkup, console())


def guide(topic: str | None) -> None:
    """Print a page of the manual, or the list of its pages."""
    from autotune.guide import print_page

    print_page(topic, console())


def schema(record: str) -> None:
    """Print the JSON Schema of a config, profile or report, or of what autotune scale --json prints."""
    print_json(schema_of(record))


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema of the record of that name; raise UsageError where there is none."""
    from autotune.config import Config
    from autotune.errors import UsageError
    from autotune.plan.scale import ScalePlan
    from autotune.records.base import Record
    from autotune.records.profile import Profile
    from autotune.records.report import Report

    records: dict[str, type[Record]] = {"config": Config, "profile": Profile, "report": Report, "scale": ScalePlan}
    if name not in records:
        raise UsageError(f"there is no schema of {name!r}; use config, profile, report or scale")
    return records[name].model_json_schema(by_alias=True, mode="validation" if name == "config" else "serialization")
