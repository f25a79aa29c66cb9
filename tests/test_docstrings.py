"""Docstrings of public functions begin with a verb, those of properties with a quantity."""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "autotune"
NEVER = ("What ", "Whether ", "Of ", "How ", "Why ", "Where ", "Which ", "Who ", "When ", "Its ", "It ", "The same ")
VERBS = {
    *("add", "ask", "begin", "build", "call", "carry", "check", "close", "compare", "complete", "connect", "copy"),
    *("count", "cut", "describe", "divide", "do", "draw", "end", "fill", "find", "forget", "give", "go", "hand"),
    *("have", "hear", "hold", "ignore", "keep", "kill", "lay", "let", "live", "load", "look", "make", "measure"),
    *("merge", "name", "note", "obey", "open", "part", "parse", "pick", "post", "predict", "print", "profile", "put"),
    *("raise", "read", "receive", "record", "remove", "return", "run", "say", "search", "send", "set", "settle"),
    *("show", "sleep", "start", "stop", "store", "sum", "take", "tell", "tie", "time", "try", "turn", "unwind"),
    *("update", "wait", "warn", "write", "yield"),
}
THIRD_PERSON = {f"{verb}s" for verb in VERBS} | {f"{verb}es" for verb in VERBS} | {"carries", "has", "ties", "tries"}


class Docstring(NamedTuple):
    """Where it is, what it says, and whether it is a property's."""

    place: str
    text: str
    of_property: bool

    @property
    def begins_well(self) -> bool:
        """True for a verb; of a property, for anything that may be a quantity."""
        if self.text.startswith(NEVER):
            return False
        word = self.text.split()[0].strip("`.,:;").lower()
        return self.of_property or word in VERBS or word in THIRD_PERSON


def docstrings(source: str, place: str) -> list[Docstring]:
    """Those of the public functions, methods and properties in ``source``."""
    found = []

    def walk(node, prefix):
        for child in node.body:
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                walk(child, f"{prefix}{child.name}.")
            is_function = isinstance(child, ast.FunctionDef) and not child.name.startswith("_")
            if is_function and (text := ast.get_docstring(child)):
                is_property = any("property" in ast.unparse(one) for one in child.decorator_list)
                found.append(Docstring(f"{prefix}{child.name}", text, is_property))

    walk(ast.parse(source), f"{place}: ")
    return found


ALL = [
    one
    for path in sorted(PACKAGE.rglob("*.py"))
    for one in docstrings(path.read_text(), str(path.relative_to(PACKAGE)))
]


def test_over_95_percent_begin_with_a_verb_or_a_quantity():
    """A verb that is not known yet is added to VERBS."""
    bad = [f"{one.place}: {one.text.splitlines()[0]}" for one in ALL if not one.begins_well]
    assert len(ALL) > 500
    assert len(bad) < 0.05 * len(ALL), "\n".join(bad)


@pytest.mark.parametrize(
    ("text", "of_property", "is_good"),
    [
        ("Return the rank of every stage.", False, True),
        ("Reads a report.", False, True),
        ("The rank of every stage.", False, False),
        ("Whether it fits.", False, False),
        ("Return whether it fits.", False, True),
        ("Bytes of the fullest rank.", True, True),
        ("Whether it fits.", True, False),
        ("The same in the mean.", True, False),
        ("Of the whole phase.", True, False),
    ],
)
def test_a_beginning(text, of_property, is_good):
    decorator = "@property\n" if of_property else ""
    (one,) = docstrings(f'{decorator}def function():\n    """{text}"""\n', "here")
    assert (one.begins_well, one.of_property) == (is_good, of_property)
