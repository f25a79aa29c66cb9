"""The glossary has every word of the tables, the JSON files, the reports and the flags."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from autotune.cli.options import COMMANDS
from autotune.cli.reference import schema_of
from autotune.guide import page
from autotune.records.failure import FailureKind
from autotune.records.prediction import TimeSplit
from autotune.report import table
from autotune.report.check.judge import Verdict
from autotune.report.paper import scale
from tests.guide.reference import SCHEMAS

TEXT = page("glossary").lower()
TERMS = {
    term.partition("(")[0].strip()
    for line in TEXT.splitlines()
    if line.startswith("|")
    for term in line.split("|")[1].split(",")
}
WORDS = set(re.findall(r"[a-z0-9]+", TEXT))
PLAIN = {  # English that needs no explanation, and parts of names that say nothing alone
    *("at", "because", "command", "created", "difference", "dir", "explore", "file", "id", "json", "len", "max", "min"),
    *(
        "output",
        "out",
        "path",
        "quiet",
        "verbose",
        "read",
        "record",
        "topic",
        "verify",
        "width",
        "form",
        "html",
        "explain",
        "merge",
        "to",
    ),
    *("config", "csv", "paths", "target", "version", "markdown", "junit", "train", "rampup"),
}


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for record in (schema, *schema.get("$defs", {}).values()):
        yield from record.get("properties", {}).items()


def has(word: str) -> bool:
    return not {word, f"{word}s", word.removesuffix("s"), word.removesuffix("es")}.isdisjoint(WORDS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_words_of_json(name):
    found = {word for field, _ in properties(schema_of(name)) for word in field.split("_")}
    assert sorted(word for word in found - PLAIN if not has(word)) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_values_of_json(name):
    values = {
        str(value)
        for _, about in properties(schema_of(name))
        for one in (about, *about.get("anyOf", ()), about.get("items", {}))
        if isinstance(one, dict)
        for value in one.get("enum", ())
    }
    assert sorted(value for value in values if value.lower() not in TEXT) == []


def test_columns_of_the_tables():
    named = {"p": "rank", "sequences/s": "throughput"}  # columns whose heading is a sign or a unit
    columns = [named.get(column, column) for column in (*table.COLUMNS, *scale.COLUMNS)]
    assert sorted({column for column in columns if not {column, column.removesuffix("s")} & TERMS}) == []


def test_parts_of_a_step():
    assert [part for part in TimeSplit.model_fields if part not in TERMS] == []


def test_outcomes_and_verdicts():
    values = (*FailureKind.__args__, *Verdict.__args__)
    assert [value for value in values if value not in TEXT] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_words_of_the_flags(name):
    found = {word for row in COMMANDS[name] for word in row.name.split("_")}
    assert sorted(word for word in found - PLAIN if not has(word)) == []


def test_no_term_is_explained_twice():
    names = [line.split("|")[1].strip() for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]
    names = [name for name in names if name != "term"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
