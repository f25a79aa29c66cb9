"""Runs and drawings on real terminals: narrow and wide, without colour, and one that can do nothing."""

import re
import subprocess
import sys

import pytest

from tests.terminal import typed

SMALL = {"layers": 6, "hidden": 16, "heads": 2, "seq-len": 8, "vocab": 32, "device": "cpu", "stages": 2, "batch": 8}
RUN = ["run", *(f"--{name}={value}" for name, value in SMALL.items())]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|4[0-7]|9[0-7]|38|48)[0-9;]*m")
MOVE = re.compile(r"\x1b\[[0-9]*[ABCDHJKG]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a run has left its report."""
    place = tmp_path_factory.mktemp("terminal")
    subprocess.run([sys.executable, "-m", "autotune", *RUN, "--record-timeline", "--quiet"], cwd=place, check=True)
    return place


def lines_of(text):
    """What stands on the terminal in the end, without colours."""
    return ESCAPE.sub("", text).split("\n")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["show report.json", "timeline report.json"])
def test_tables_and_drawings_fit_the_terminal(command, columns, folder):
    shown = lines_of(typed(command.split(), folder, columns))
    tables = [line for line in shown if line.startswith(("rank ", " ")) or "──" in line]  # words wrap by themselves
    assert len(tables) > 4
    assert all(len(line) <= columns for line in tables), max(tables, key=len)
    assert any("m = " in line for line in shown)


def test_a_run_on_a_narrow_terminal_keeps_its_two_lines(folder):
    text = typed([*RUN, "--fresh", "--out", "again.json"], folder, 80)
    assert MOVE.search(text)  # it goes back to its lines,
    frames = [line for part in text.split("\r") for line in lines_of(part) if "best so far" in line]
    assert frames
    assert max(map(len, frames)) < 80  # which are cut, not wrapped
    assert re.search(r"Sweet spot: (undecided between )?m = ", text)


def test_no_color_leaves_everything_but_colours(folder):
    with_colour, without = (typed(["timeline", "report.json"], folder, 100, **more) for more in ({}, {"NO_COLOR": "1"}))
    assert COLOUR.search(with_colour)
    assert not COLOUR.search(without)
    assert lines_of(with_colour) == lines_of(without)


def test_a_dumb_terminal_gets_plain_lines(folder):
    text = typed([*RUN, "--fresh", "--out", "dumb.json"], folder, 80, "dumb")
    assert "\x1b" not in text
    assert "timing stages, round 2 of 3" in text
    assert "  best so far m = " in text


def test_a_pipe_gets_plain_lines_and_no_control_characters(folder):
    done = subprocess.run(
        [sys.executable, "-m", "autotune", *RUN, "--fresh", "--out", "pipe.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stderr
    assert any(line.startswith("  best so far m = ") for line in done.stderr.splitlines())
