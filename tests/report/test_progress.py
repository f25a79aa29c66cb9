"""What a run tells while it goes on: two lines on a terminal, plain ones elsewhere."""

import io

import pytest
from rich.console import Console

from autotune.report.progress import Progress

LONG = (
    "best so far m = 8 1F1B: 203.1 sequences/s, within 1% of the best with 83%; 3 more could win, about 2.1 s of steps"
)


def told(is_quiet=False, **terminal):
    """What is printed of a short run."""
    file = io.StringIO()
    with Progress(Console(file=file, width=80, **terminal), is_quiet) as shown:
        shown.header(["device    cpu"])
        shown.progress("timing stages, round 1 of 3", 0.1)
        shown.progress("timing stages, round 1 of 3", 0.1)
        shown.step("m = 8 1F1B", 1, 0.251)
        shown.step("m = 8 1F1B", 2, 0.249)
        shown.known(LONG)
        shown.known(LONG)
        shown.warn("the machine drifted")
        room = shown._both().plain if shown.status else ""
    return file.getvalue(), room


def test_without_a_terminal_there_is_one_plain_line_per_event():
    text, _ = told()
    assert text.splitlines() == [
        "device    cpu",
        "timing stages, round 1 of 3 (10%)",
        "m = 8 1F1B",
        f"  {LONG}",
        "warning: the machine drifted",
    ]


@pytest.mark.parametrize("name", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_the_plain_lines(name, monkeypatch):
    monkeypatch.setenv("TERM", name)
    text, _ = told(force_terminal=True, no_color=True)
    assert text.splitlines()[1] == "timing stages, round 1 of 3 (10%)"
    assert "\x1b" not in text.replace("\x1b[0m", "")


def test_on_a_terminal_two_lines_stay_in_their_place_and_never_wrap(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    text, both = told(force_terminal=True)
    first, second = both.split("\n")
    assert first == "m = 8 1F1B: step 2, 0.249 s"
    assert second.startswith("  best so far m = 8 1F1B")
    assert second.endswith("…")
    assert max(len(first) + 2, len(second)) < 80
    assert "\x1b[?25l" in text  # the cursor is hidden while the lines change,
    assert "\x1b[?25h" in text.partition("…")[2]  # and shown again


def test_quiet_leaves_only_warnings():
    assert told(is_quiet=True)[0] == "warning: the machine drifted\n"


def test_what_is_left_is_foretold_once_enough_is_done(monkeypatch):
    moments = iter([0.0, 10.0, 40.0])
    monkeypatch.setattr("autotune.report.progress.time.monotonic", lambda: next(moments))
    file = io.StringIO()
    shown = Progress(Console(file=file, width=80), False)
    for done in (0.0, 0.1, 0.5):
        shown.progress("timing", done)
    assert file.getvalue().splitlines() == ["timing (0%)", "timing (10%)", "timing (50%, about 40 s left)"]
