"""What a reader of files has against one, in words: rules of pydantic's, keys that are not known, YAML."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from autotune.records.plain import hints

GIVEN = 200  # characters of a value, or of its path, that a message repeats
RULES = {
    "missing": "it is missing; give it",
    "extra_forbidden": "it is no key that is known; remove it",
    "unexpected_keyword_argument": "it is no key that is known; remove it",
    "literal_error": "it must be {expected}",
    "enum": "it must be {expected}",
    "greater_than": "it must be greater than {gt:g}",
    "greater_than_equal": "it must be {ge:g} or more",
    "less_than": "it must be less than {lt:g}",
    "less_than_equal": "it must be {le:g} or less",
    "too_short": "it needs {min_length} or more",
    "too_long": "it takes {max_length} at most",
    "finite_number": "it must be a finite number",
}
ALTERNATIVE = re.compile(r"(constrained|function|tuple|list|dict|literal|model|lax|json|is)[-\[(].*|bool|int|float|str")
"""How pydantic names one of several types that a field takes, as the last part of a path or before an index."""
CHOICE = re.compile(r"'([^']+)'")
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a key that a record of its own, or a dataclass, does not have."""
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table of keys",
    "model": "a table of keys",
    "dataclass": "a table of keys",
}
"""What a field takes, by how the name of pydantic's complaint begins, such as ``int_parsing``."""


def explain(error: ValidationError, record: type[BaseModel] | None = None) -> str:
    """Return the first complaint of ``error`` as ``path: rule (given: value)``, and how many more there are. A rule
    between fields has no path; its message begins with the field that breaks it.

    ``record``: what was read; with it a key that is not known is told with the one that was meant.
    """
    first, *rest = complaints(error)
    more = f"; and {len(rest)} more" if rest else ""
    if first["type"] in UNKNOWN and (model := model_at(record, first["loc"][:-1])):
        return unknown_key(first["loc"], keys_of(model)) + more
    path = ".".join(map(str, place_of(first)))[:GIVEN]
    return f"{path}: {broken_rule(error)}{more}" if path else f"{broken_rule(error)}{more}"


def broken_rule(error: ValidationError) -> str:
    """Return the rule of the first complaint, and the value that breaks it where that is a single one."""
    first = complaints(error)[0]
    is_whole = isinstance(first["input"], dict | list) or first["type"] in ("json_invalid", "missing")
    given = "" if is_whole else f" (given: {shortened(repr(first['input']))})"
    meant = meant_by(first["input"], CHOICE.findall((first.get("ctx") or {}).get("expected", "")))
    return rule(first) + given + (f"; did you mean {meant!r}?" if meant else "")


def meant_by(word: object, known: list[str]) -> str | None:
    """Return the one of the ``known`` words that a word is nearest to; None where it is near to none."""
    of_case = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(word).lower(), of_case, n=1, cutoff=0.7)
    return of_case[near[0]] if near else None


def place_of(complaint: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return the path to what is wrong as a file has it, without the types that pydantic tried there."""
    place: tuple[int | str, ...] = complaint["loc"]
    if complaint["type"] in UNKNOWN:
        return place
    return tuple(part for at, part in enumerate(place) if not at or not ALTERNATIVE.fullmatch(str(part)))


def complaints(error: ValidationError) -> list[Any]:
    """Return what is wrong, first the keys that are not known: a key that is missing may be one of these, misspelt. A
    list that is too short because its items are wrong is no fault of its own, and a value that is of none of several
    types is one fault."""
    every = error.errors()
    own = [
        one
        for one in every
        if one["type"] != "too_short"
        or not any(other is not one and other["loc"][: len(one["loc"])] == one["loc"] for other in every)
    ]
    at_places: dict[tuple[int | str, ...], Any] = {}
    for one in own:
        at_places.setdefault(place_of(one), one)
    return sorted(at_places.values(), key=lambda one: one["type"] not in UNKNOWN)


def rule(complaint: Mapping[str, Any]) -> str:
    """Return the rule that a value breaks."""
    kind = complaint["type"]
    if kind in RULES:
        return RULES[kind].format(**complaint.get("ctx") or {})
    name = kind.partition("_")[0]
    if name in KINDS:
        return f"it must be {KINDS[name]}"
    message = str(complaint["msg"])
    return message.removeprefix("Value error, ").replace("Input should", "it must")


def unknown_key(place: tuple[int | str, ...], known: list[str]) -> str:
    """Return which key is not known, and the one that was meant, or all that there are."""
    key = str(place[-1])
    meant = meant_by(key, known)
    path = shortened(".".join(map(str, place)))
    return f"unknown key {path!r}; " + (f"did you mean {meant!r}?" if meant else f"the keys are {', '.join(known)}")


def keys_of(record: type[Any]) -> list[str]:
    """Return the keys of a record as a file writes them, sorted."""
    return sorted(annotations_of(record))


def annotations_of(record: type[Any]) -> dict[str, Any]:
    """Return what each key of a record may hold, by the key as a file writes it."""
    if is_dataclass(record):
        return {field.name: hints(record)[field.name] for field in fields(record)}
    return {field.alias or name: field.annotation for name, field in record.model_fields.items()}


def model_at(record: type[Any] | None, place: tuple[int | str, ...]) -> type[Any] | None:
    """Return the record that lies at a place inside of another, such as ``("stages", 0)``; None where it is not one
    record alone."""
    for part in place:
        if record is None or isinstance(part, int):
            continue
        models = list(models_in(annotations_of(record).get(part)))
        record = models[0] if len(models) == 1 else None
    return record


def models_in(annotation: Any) -> Iterator[type[Any]]:
    """Yield the records that an annotation speaks of, such as one of ``tuple[Stage, ...] | None``."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def shortened(text: str) -> str:
    """Return the beginning of a text that is long."""
    return text if len(text) <= GIVEN else f"{text[:GIVEN]}…"


def yaml_fault(error: Any) -> str:
    """Return in one line what ruamel.yaml has against a text, and the line; of a key that is there twice its name."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if not problem or mark is None:
        return " ".join(str(error).split()) or type(error).__name__
    twice = re.match(r'found duplicate key "(.*?)" with value', problem, re.DOTALL)
    what = f"the key {shortened(twice[1])!r} is there already; remove one of the two" if twice else problem
    return f"line {mark.line + 1}: {' '.join(what.split())}"
