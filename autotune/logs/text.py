"""Lines of a log as a reader wants them: without colours, prefixes and carriage returns; numbers as launchers print
them."""

import re
from datetime import datetime
from math import inf, isfinite, nan

COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RANK_PREFIX = re.compile(r"^\[(?:rank|default)(\d+)\]:\s?")
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:[.,]\d{1,6})?)")
NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?)"
LONGEST = 16 * 1024
"""Characters of a line that are looked at; more is no log."""
SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def tidy(line: str) -> tuple[str, int | None]:
    """Return a line without colours and the prefix that torchrun gives it, and the rank in that prefix."""
    plain = COLOUR.sub("", line[:LONGEST]).rstrip("\r\n")
    match = RANK_PREFIX.match(plain)
    return (plain[match.end() :], int(match[1])) if match else (plain, None)


def number(text: str) -> float:
    """Return the number in ``1,234.5`` or ``1.2E+01``; nan and inf as they are."""
    plain = text.replace(",", "").lower()
    if plain.lstrip("+-") in ("nan", "inf", "infinity"):
        return nan if "nan" in plain else -inf if plain.startswith("-") else inf
    return float(plain)


def finite(text: str | None) -> float | None:
    """Return the number, None where there is none or it is not finite."""
    value = number(text) if text is not None else nan
    return value if isfinite(value) else None


def is_broken(*texts: str | None) -> bool:
    """Return whether one of the numbers is printed and not finite."""
    return any(text is not None and not isfinite(number(text)) for text in texts)


def half_width(text: str, scale: float = 1.0) -> float:
    """Return half of the last digit of a number, times ``scale``: how far rounding may have moved it."""
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals) * scale


def short_number(text: str) -> float:
    """Return the number in ``1.23K`` or ``262K``, as people print it."""
    scale = SCALES.get(text[-1:].upper(), 1.0) if text[-1:].isalpha() else 1.0
    return number(text[:-1] if text[-1:].isalpha() else text) * scale


def clock(line: str) -> float | None:
    """Return the time that a line begins with or contains, seconds since the epoch by the local clock; only
    differences mean anything."""
    match = TIMESTAMP.search(line)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2].replace(',', '.')}").timestamp()
    except ValueError:
        return None
