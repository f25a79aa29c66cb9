"""What of a launcher's settings changes in the user's own command, where a run has tuned one that shows them."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from autotune.command.template import fill, present_numbers
from autotune.records.report import Report
from autotune.report.export.render import shown
from autotune.report.export.target import Settings


class Difference(NamedTuple):
    """The settings that the command has not as they are to be, and in words what changes and what stays."""

    settings: Settings
    notes: tuple[str, ...]


def difference(report: Report, settings: Settings) -> Difference:
    """Return what of ``settings`` changes in the command that the report is of; all of them where it is of none, or of
    a command that shows none of them."""
    now = {key: value for key in settings if (value := present(report, key)) is not None}
    if not now:
        return Difference(settings, ())
    stays = [key for key, value in now.items() if value == text_of(settings[key])]
    changes = [f"{key} {now[key]} -> {text_of(settings[key])}" for key in now if key not in stays]
    new = [f"{key} {text_of(settings[key])}" for key in settings if key not in now and settings[key] is not None]
    lists = (("changes in your command", changes), ("is to be set in it", new), ("stays", stays))
    notes = [f"{what}: {', '.join(texts)}" for what, texts in lists if texts]
    if not changes and not new:
        notes.insert(0, "nothing changes in your command")
    return Difference({key: value for key, value in settings.items() if key not in stays}, tuple(notes))


def replicas_of(report: Report, stated: int | None) -> int | None:
    """Return the replicas that are ``stated``, or else those that the command starts, or that ran; None where nothing
    says them."""
    told = report.training_command
    return stated or (told.data_parallel if told else report.workload.data_parallel)


def present(report: Report, key: str) -> str | None:
    """Return what a launcher's key holds now, in the command or in a file that it reads; None where neither shows it,
    or shows only where a trial's value goes."""
    told = report.training_command
    if told is None:
        return None
    values = present_values(report)
    for one in told.file_values:
        if one.key == key and one.present is not None:
            return text_of(json.loads(one.present))
    text = in_words(told.words, key)
    if text is None:
        return None
    filled = fill(text, values | {name: str(number) for name, number in present_numbers([text]).items()})
    return None if filled.startswith("{") else filled


def present_values(report: Report) -> dict[str, str]:
    """Return what placeholders stand for now, of those that are known: the same in all trials, or of the present m."""
    told, batch, stages = report.training_command, report.workload.batch, report.workload.stages
    count, replicas = (told.micro_batches, told.data_parallel) if told else (None, 1)
    known = {
        "batch": batch,
        "global_batch": batch * replicas if batch else None,
        "stages": stages,
        "data_parallel": replicas,
        "micro_batches": count,
        "micro_batch_size": batch // count if batch and count and batch % count == 0 else None,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def in_words(words: Sequence[str], key: str) -> str | None:
    """Return the value of ``--key value``, ``--key=value``, ``key=value`` or of the bare flag; None without one."""
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.lstrip("-+") != key or (not equals and not word.startswith("--")):
            continue
        following = words[at + 1] if at + 1 < len(words) else "--"
        return value if equals else "true" if following.startswith("-") else following
    return None


def text_of(value: Any) -> str:
    """Return a value as a command line or a file has it."""
    return str(value).lower() if isinstance(value, bool) else shown(value)
