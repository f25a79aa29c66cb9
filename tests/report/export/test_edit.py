"""Only the lines of our keys change: comments, quotes, indentation, order, line breaks and the end of the file stay."""

import difflib
import json
import tomllib

import pytest

from autotune.report.export.edit.document import Document, Language
from autotune.report.export.edit.splice import remove, set_value

JSON, YAML, TOML = Language.JSON, Language.YAML, Language.TOML


def changed(language, text, path, value, beside=None):
    return set_value(Document(language, text), tuple(path.split(".")), value, beside)


def removed(language, text, path):
    return remove(Document(language, text), tuple(path.split(".")))


@pytest.mark.parametrize(
    ("language", "text", "path", "value", "made"),
    [
        (YAML, "a:\n  b: 1  # why\n", "a.b", 2, "a:\n  b: 2  # why\n"),
        (YAML, "a: 'x'", "a", "y", "a: 'y'"),
        (YAML, 'a: "x" # c\r\nb: 1\r\n', "a", "y", 'a: "y" # c\r\nb: 1\r\n'),
        (YAML, "a:\nb: 1\n", "a", 3, "a: 3\nb: 1\n"),
        (YAML, "a: # c\nb: 1\n", "a", 3, "a: 3 # c\nb: 1\n"),
        (YAML, "a: *x\n".replace("*x", "0"), "a", None, "a: null\n"),
        (YAML, "{a: 1, 'b': 2}\n", "b", 3, "{a: 1, 'b': 3}\n"),
        (YAML, "x: &x 4\ny: *x\n", "y", 5, "x: &x 4\ny: 5\n"),
        (YAML, "a:\n    b: 1\nc: 2\n", "a.d", 3, "a:\n    b: 1\n    d: 3\nc: 2\n"),
        (YAML, "a:\n    b: 1\n# end", "e.f", 3, "a:\n    b: 1\ne:\n    f: 3\n# end"),
        (YAML, "a:\n  b: 1\n  # of d\n\nc: 2", "c2", True, "a:\n  b: 1\n  # of d\n\nc: 2\nc2: true"),
        (YAML, "a: |\n  x\n\nb: 1\n", "b", 2, "a: |\n  x\n\nb: 2\n"),
        (YAML, "p:\n    a:  # none yet\n    b: 1", "p.a.c", 1, "p:\n    a:  # none yet\n        c: 1\n    b: 1"),
        (YAML, "p:\n  a: null\n", "p.a.b", 1, 'p:\n  a: {"b": 1}\n'),
        (YAML, '{\n  "a": 1, # one\n  "b": 2 # two\n}\n', "c", 3, '{\n  "a": 1, # one\n  "b": 2, # two\n  "c": 3\n}\n'),
        (YAML, '{\n  "a": 1, # one\n}\n', "c", 3, '{\n  "a": 1, # one\n  "c": 3,\n}\n'),
        (JSON, '{"a":1}', "b", 2, '{"a":1, "b":2}'),
        (JSON, '{\n\t"a": 1\n}\n', "b.c", 2, '{\n\t"a": 1,\n\t"b": {\n\t\t"c": 2\n\t}\n}\n'),
        (JSON, '{"n": "é", "a": 5e8}', "n", "ü", '{"n": "ü", "a": 5e8}'),
        (JSON, "{}", "a", 1, '{\n  "a": 1\n}'),
        (JSON, '{"a": {}}', "a.b", 1, '{"a": {"b": 1}}'),
        (TOML, "[a]\nb=1 # c\n\n# of d\n[d]\n", "a.c", 2, "[a]\nb=1 # c\nc=2\n\n# of d\n[d]\n"),
        (TOML, "[a]\n# nothing\n", "a.c", "x", '[a]\nc = "x"\n# nothing\n'),
        (TOML, "x = 1\n", "a.c", 2, "x = 1\n\n[a]\nc = 2\n"),
        (TOML, "[a]\nb = 'x'  # c", "a.b", "y", "[a]\nb = 'y'  # c"),
        (TOML, 'a = {b = "x,}", c = 2}\n', "a.c", 3, 'a = {b = "x,}", c = 3}\n'),
        (TOML, "[a]\nb = [\n  1, # one\n]\n", "a.c", 3, "[a]\nb = [\n  1, # one\n]\nc = 3\n"),
    ],
)
def test_a_key_is_set(language, text, path, value, made):
    assert changed(language, text, path, value) == made


@pytest.mark.parametrize(
    ("language", "text", "path", "made"),
    [
        (YAML, "a: 1\nb: 2\nc: 3\n", "b", "a: 1\nc: 3\n"),
        (YAML, "a: 1\nb: 2  # why\nc: 3\n", "b", "a: 1\n# why\nc: 3\n"),
        (YAML, "a:\n  b:\n  - x  # one\n  - '#'\n  c: 3", "a.b", "a:\n  # one\n  c: 3"),
        (YAML, "a: 1\nb: 2", "b", "a: 1\n"),
        (YAML, "{a: 1, b: 2, c: 3}", "b", "{a: 1, c: 3}"),
        (YAML, '{\n  "a": 1,\n  "b": 2 # two\n}', "b", '{\n  "a": 1,\n  # two\n}'),
        (JSON, '{"a": 1, "b": 2}', "b", '{"a": 1}'),
        (JSON, '{\n  "a": 1,\n  "b": [\n    2\n  ]\n}\n', "b", '{\n  "a": 1\n}\n'),
        (JSON, '{\n  "a": 1,\n  "b": 2\n}\n', "a", '{\n  "b": 2\n}\n'),
        (TOML, "[a]\nb = 1\nc = 2\n", "a.b", "[a]\nc = 2\n"),
        (TOML, "[a]\nb = [\n  'x', # one\n]\nc = 2\n", "a.b", "[a]\n# one\nc = 2\n"),
        (TOML, "[a]\r\nb = 1\r\nc = 2\r\n", "a.b", "[a]\r\nc = 2\r\n"),
    ],
)
def test_a_key_is_removed_and_its_comment_stays(language, text, path, made):
    assert removed(language, text, path) == made


def test_a_value_that_is_right_already_is_not_written_again():
    for language, text in ((YAML, "a: 0x10 # hex\n"), (JSON, '{"a": 16 }'), (TOML, "a = 0x10\n")):
        assert changed(language, text, "a", 16) == text


def test_a_value_of_several_lines_makes_room_and_its_comments_stay():
    text = "m:\n  layout:\n  - [a]  # first\n  - [b]\n  x: 1\n"
    assert changed(YAML, text, "m.layout", "Et|tL") == "m:\n  # first\n  x: 1\n  layout: Et|tL\n"


@pytest.mark.parametrize("word", ["null", "1e3", "yes", "12", "0x1f", "a: b", "#", "- x", ""])
def test_text_that_yaml_would_read_as_something_else_is_quoted(word):
    made = Document(YAML, changed(YAML, "a: 1\n", "a", word))
    assert made.values == {"a": word}


def test_keys_of_toml_are_found_wherever_tables_stand():
    text = (
        '"x y" = 1\na.b.c = 2\n[t]\nq = """\n[no]\n"""\nr = \'\'\'#\'\'\'\ns = 1979-05-27 07:32:00\n'
        '[t.u]\nv = [["#"], {w = 1}]\n'
        "[[many]]\nz = 1\n[[many]]\nz = 2\n[last]\nk = 1"
    )
    made = changed(TOML, text, "last.k", 7)
    assert made == text[:-1] + "7"
    assert tomllib.loads(changed(TOML, text, "t.u.n", 5))["t"]["u"]["n"] == 5
    assert tomllib.loads(changed(TOML, text, "t.n", 5)) == tomllib.loads(text) | {
        "t": tomllib.loads(text)["t"] | {"n": 5}
    }


def test_a_byte_is_changed_in_a_large_file_and_no_other():
    values = {f"key_{number}": {"a": number, "b": [number, {"c": None}]} for number in range(300)}
    text = json.dumps(values, indent=3)
    made = changed(JSON, text, "key_150.a", -1)
    lines = [line for line in difflib.ndiff(text.splitlines(), made.splitlines()) if line[0] in "+-"]
    assert lines == ['-       "a": 150,', '+       "a": -1,']
