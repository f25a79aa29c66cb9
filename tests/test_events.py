"""Events of a run: every kind reaches whoever listens, however deep it is handed on."""

import inspect

import pytest

from autotune.events import Events, Forwarded, Remembered, Silent
from autotune.report.progress import Progress

KINDS = {
    "header": (["device    cpu"],),
    "progress": ("building the stages", 0.5),
    "step": ("m = 8 1F1B", 1, 0.25),
    "known": ("best so far m = 8 1F1B",),
    "warn": ("the machine drifted",),
}


def listener(heard):
    """Events that note what they hear."""
    kinds = {kind: lambda self, *said, kind=kind: heard.append((kind, said)) for kind in KINDS}
    return type("Listener", (), kinds)()


def test_these_are_all_kinds():
    assert {name for name, _ in inspect.getmembers(Events, inspect.isfunction) if name[0] != "_"} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_handed_on(kind):
    heard, warnings = [], []
    getattr(Remembered(Forwarded(listener(heard)), warnings), kind)(*KINDS[kind])
    assert heard == [(kind, KINDS[kind])]
    assert warnings == (["the machine drifted"] if kind == "warn" else [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listens", [Silent, Forwarded, Progress])
def test_every_listener_hears_every_kind_in_the_same_words(kind, listens):
    assert inspect.signature(getattr(listens, kind)) == inspect.signature(getattr(Events, kind))
