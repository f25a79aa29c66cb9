"""Formats of nobody in particular: a line of JSON, and a pattern that the user gives.

JSON: an object a line, with keys of ``KEYS``. Pattern: groups of the same names; a pattern of one group without a name
gives seconds. ::

    {"step": 3, "step_time_s": 0.512, "loss": 10.84, "max_memory_allocated": 1073741824}
    --read 'took (?P<step_time_ms>[0-9.]+) ms'
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from autotune.errors import UsageError
from autotune.logs.formats.spec import LogFormat, Reader
from autotune.logs.line import MemoryLine, Said, StepLine
from autotune.logs.text import finite, half_width, is_broken, number

KEYS: dict[str, tuple[str, ...]] = {
    "number": ("step", "iteration", "global_step"),
    "seconds": ("step_time_s", "seconds", "step_time", "s"),
    "milliseconds": ("step_time_ms", "milliseconds", "ms"),
    "sequences_s": ("sequences_s", "samples_per_second", "samples_s"),
    "tokens_s": ("tokens_s", "tokens_per_second", "tokens_per_sec"),
    "tokens_device_s": ("tokens_per_second_per_device", "tps"),
    "loss": ("loss", "lm_loss", "train_loss"),
    "gradient_norm": ("gradient_norm", "grad_norm"),
    "rank": ("rank",),
    "allocated_bytes": ("peak_memory_bytes", "max_memory_allocated", "max_allocated", "memory_bytes"),
    "reserved_bytes": ("max_memory_reserved", "max_reserved"),
}
"""What may be in a line, and the names that it may have there."""


def said(values: Mapping[str, Any]) -> Said | None:
    """Return what keys and values of ``KEYS`` come to: a step where they time or count one, else memory."""
    texts = {
        part: str(values[name])
        for part, names in KEYS.items()
        for name in reversed(names)
        if values.get(name) is not None
    }
    rank = int(number(texts["rank"])) if "rank" in texts else None
    timed = {"seconds", "milliseconds", "sequences_s", "tokens_s", "tokens_device_s", "number"} & texts.keys()
    if not timed:
        held = {part: texts[part] for part in ("allocated_bytes", "reserved_bytes") if part in texts}
        return MemoryLine(rank=rank, **{part: int(number(text)) for part, text in held.items()}) if held else None
    scale = 1e-3 if "milliseconds" in texts else 1.0
    seconds = texts.get("milliseconds", texts.get("seconds"))
    return StepLine(
        number=int(number(texts["number"])) if "number" in texts else None,
        seconds=number(seconds) * scale if seconds else None,
        half_width_s=half_width(seconds, scale) if seconds else 0.0,
        loss=finite(texts.get("loss")),
        gradient_norm=finite(texts.get("gradient_norm")),
        is_broken=is_broken(texts.get("loss"), texts.get("gradient_norm")),
        rank=rank,
        sequences_s=finite(texts.get("sequences_s")),
        tokens_s=finite(texts.get("tokens_s")),
        tokens_device_s=finite(texts.get("tokens_device_s")),
    )


def json_line(line: str) -> Said | None:
    """Return what a line of JSON says."""
    begin = line.find("{")
    if begin < 0:
        return None
    try:
        found = json.loads(line[begin:])
        return said(found) if isinstance(found, dict) else None
    except (ValueError, RecursionError, OverflowError):
        return None


def json_memory(line: str) -> MemoryLine | None:
    """Return the memory in a line of JSON that also times a step."""
    begin = line.find("{")
    try:
        found = json.loads(line[begin:]) if begin >= 0 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    names = [*KEYS["allocated_bytes"], *KEYS["reserved_bytes"], *KEYS["rank"]]
    held = said({name: found[name] for name in names if name in found})
    is_step_too = isinstance(said(found), StepLine)
    return held if is_step_too and isinstance(held, MemoryLine) else None


def pattern_format(text: str) -> LogFormat:
    """Return the format of a pattern of the user's own; raise UsageError where it is none, or says nothing."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"--read: {text!r} is no pattern: {error}; mend it, or name a format") from None
    known = {name for names in KEYS.values() for name in names}
    strange = sorted(set(pattern.groupindex) - known)
    if strange or not pattern.groups:
        wrong = f"there is no group {strange[0]!r}" if strange else "it has no group"
        raise UsageError(f"--read: {text!r}: {wrong}; write (?P<NAME>...) with a NAME of {', '.join(sorted(known))}")

    def read(line: str) -> Said | None:
        match = pattern.search(line)
        if match is None:
            return None
        values = match.groupdict() or {"seconds": match[1]}
        try:
            return said(values)
        except ValueError:
            return None

    reader: Reader = read
    return LogFormat("pattern", (reader,))


JSON = LogFormat("json", (json_line, json_memory), marks=("{",))
