"""Records that ranks read or write: plain dataclasses, because where ranks run there may be nothing but torch and the
standard library.

Pydantic takes them as they are: inside its own records they are validated like the rest, and stand in the schema. Ranks
and workers, and the controller that hears them, read them with ``decode``.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

T = TypeVar("T")


class Bound(NamedTuple):
    """The least value of a number, or (``is_open``) what it must be greater than."""

    least: int
    is_open: bool = False

    def holds(self, number: float) -> bool:
        """Return whether a number keeps to it."""
        return number > self.least if self.is_open else number >= self.least

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Return the rule as pydantic writes its own."""
        return handler(source) | {"gt" if self.is_open else "ge": self.least}


class NotEmpty(NamedTuple):
    """The rule of a tuple that has an element."""

    def holds(self, row: tuple[Any, ...]) -> bool:
        """Return whether a tuple keeps to it."""
        return bool(row)

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Return the rule as pydantic writes its own."""
        return handler(source) | {"min_length": 1}


PositiveInt = Annotated[int, Bound(0, is_open=True)]
NonNegativeInt = Annotated[int, Bound(0)]
NonNegativeFloat = Annotated[float, Bound(0)]
Row = Annotated[tuple[T, ...], NotEmpty()]
"""A tuple of one or more."""


class Plain:
    """Base of the records that both sides know; each is a frozen dataclass whose fields are given by name."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }


def encode(value: object) -> bytes:
    """Return strict JSON of a record, or of what holds records."""
    return json.dumps(value, default=asdict, allow_nan=False, separators=(",", ":")).encode()


@overload
def read(kind: type[T], message: bytes) -> T: ...
@overload
def read(kind: Any, message: bytes) -> Any: ...
def read(kind: Any, message: bytes) -> Any:
    """Return what ``encode`` wrote of a ``kind``; raise ValueError where it is no such thing."""
    return decode(kind, json.loads(message, parse_constant=refuse_constant))


def refuse_constant(words: str) -> float:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(f"{words} is no number")


@overload
def decode(kind: type[T], value: Any) -> T: ...
@overload
def decode(kind: Any, value: Any) -> Any: ...
def decode(kind: Any, value: Any) -> Any:
    """Return a JSON ``value`` as a ``kind``: a record, a named tuple, or what type hints can say of either; raise
    ValueError where it is none."""
    if kind in (Any, object):
        return value
    if is_dataclass(kind):
        return decode_record(kind, value)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is not None:
        return DECODERS[origin](parts, value)
    if issubclass(kind, Enum):
        return kind(value)
    if hasattr(kind, "_fields"):
        return kind(*decode_row(tuple(get_type_hints(kind).values()), value))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise wrong(kind.__name__, value)
    return value


def wrong(wanted: object, value: object) -> ValueError:
    """Return the error of a value that is not what was wanted."""
    return ValueError(f"{wanted} was expected, not {str(value)[:80]!r}")


@cache
def hints(kind: type) -> dict[str, Any]:
    """Return the types of a record's fields, with their bounds."""
    return get_type_hints(kind, include_extras=True)


def decode_record(kind: Any, value: Any) -> Any:
    """Return the record whose fields a JSON object holds; TypeError of a missing field becomes a ValueError."""
    names = {field.name for field in fields(kind)}
    if not isinstance(value, dict) or not names.issuperset(value):
        raise wrong(f"{kind.__name__} of {', '.join(sorted(names))}", value)
    try:
        return kind(**{name: decode(hints(kind)[name], part) for name, part in value.items()})
    except TypeError as error:
        raise ValueError(str(error)) from None


def decode_union(parts: tuple[Any, ...], value: Any) -> Any:
    """Return the value as the first of ``parts`` that it can be."""
    if value is None and NoneType in parts:
        return None
    for part in parts:
        try:
            return decode(part, value)
        except ValueError as error:
            reason = error
    raise reason


def decode_literal(parts: tuple[Any, ...], value: Any) -> Any:
    """Return a value that is one of ``parts``."""
    if value not in parts:
        raise wrong(f"one of {parts}", value)
    return value


def decode_tuple(parts: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Return a JSON array as a tuple of any length, or of the types of ``parts``."""
    if not isinstance(value, list):
        raise wrong("an array", value)
    return tuple(decode(parts[0], one) for one in value) if parts[1:] == (...,) else decode_row(parts, value)


def decode_row(parts: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Return a JSON array that has one element of each type."""
    if not isinstance(value, list) or len(value) != len(parts):
        raise wrong(f"an array of {len(parts)}", value)
    return tuple(decode(part, one) for part, one in zip(parts, value, strict=True))


def decode_list(parts: tuple[Any, ...], value: Any) -> list[Any]:
    """Return a JSON array as a list."""
    return list(decode_tuple((*parts, ...), value))


def decode_dict(parts: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a JSON object as a dictionary."""
    if not isinstance(value, dict):
        raise wrong("an object", value)
    return {key: decode(parts[1], one) for key, one in value.items()}


def decode_bounded(parts: tuple[Any, ...], value: Any) -> Any:
    """Return a number or a tuple that keeps to its rules."""
    found = decode(parts[0], value)
    if any(isinstance(rule, Bound | NotEmpty) and not rule.holds(found) for rule in parts[1:]):
        raise wrong(f"what keeps to {parts[1:]}", value)
    return found


DECODERS: dict[Any, Callable[[tuple[Any, ...], Any], Any]] = {
    Union: decode_union,
    UnionType: decode_union,
    Literal: decode_literal,
    tuple: decode_tuple,
    list: decode_list,
    dict: decode_dict,
    Annotated: decode_bounded,
}
