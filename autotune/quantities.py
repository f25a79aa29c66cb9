"""Quantities as people write them, a number with a unit. The standard library alone: workers read them too."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
SECONDS = {"": 1, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600}


def parse_quantity(value: Any, units: Mapping[str, float], example: str) -> Any:
    """Turn ``"8GiB"`` or ``"2m"`` into a number of the base unit; passes numbers through, refuses other text."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*|%)\s*", value)
    if not match or match[2].lower() not in units:
        raise ValueError(f"write a number with a unit, such as {example}")
    return float(match[1]) * units[match[2].lower()]


def parse_bytes(value: Any) -> Any:
    """Return bytes from ``"8GiB"``, ``"512MiB"`` or a plain number of bytes."""
    number = parse_quantity(value, UNITS, "8GiB")
    if isinstance(number, float) and not isfinite(number):
        raise ValueError("it must be a finite number")
    return int(number) if isinstance(number, float) else number


def parse_seconds(value: Any) -> Any:
    """Return seconds from ``"120s"``, ``"2m"`` or a plain number of seconds."""
    return parse_quantity(value, SECONDS, "120s")
