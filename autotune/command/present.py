"""What the user's command runs with now: what ``--present`` says, what stands in its placeholders, and in its files."""

import json
from collections.abc import Sequence

from autotune.command.files import Setting, present_value
from autotune.command.template import CHOSEN, present_numbers
from autotune.records.job.command import CommandFacts, FileValue


def command_facts(
    words: Sequence[str],
    settings: Sequence[Setting],
    batch: int,
    stated: int | None = None,
    data_parallel: int = 1,
) -> CommandFacts:
    """Return what a command with a ``batch`` per replica runs with now; ``stated``: m, as the user says. Raises
    InputError for a file that cannot be read."""
    values = tuple(
        FileValue(file=str(one.file), key=".".join(one.key), template=one.value, present=as_json(present_value(one)))
        for one in settings
    )
    texts = [*words, *(one.value for one in settings)]
    return CommandFacts(
        words=tuple(words),
        file_values=values,
        data_parallel=data_parallel,
        micro_batches=stated or micro_batches(present_numbers(texts) | in_files(values), batch),
    )


def as_json(value: object) -> str | None:
    """Return a plain value as JSON; None where there is none."""
    return json.dumps(value, default=str) if value is not None else None


def in_files(values: Sequence[FileValue]) -> dict[str, int]:
    """Return the whole numbers that files hold where a trial's m or b goes."""
    return {
        name: int(one.present)
        for one in values
        for name in CHOSEN
        if one.template == f"{{{name}}}" and one.present is not None and one.present.isdecimal() and int(one.present)
    }


def micro_batches(numbers: dict[str, int], batch: int) -> int | None:
    """Return m where it is among ``numbers``, or follows from b."""
    count, size = (numbers.get(name) for name in CHOSEN)
    if count is None and size is not None and batch % size == 0:
        count = batch // size
    return count
