"""Bars for a terminal."""

import io

import pytest
from rich.console import Console

from autotune.report.bars import bar, print_bars
from tests.report.export.reports import make_report


def drawn(report, width=100, encoding="utf-8"):
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=raw, width=width, color_system=None)
    print_bars(report, console)
    raw.flush()
    return raw.buffer.getvalue().decode(encoding).splitlines()


def test_a_bar_is_proportional_and_never_empty():
    assert [bar(value, 8, 4, "#") for value in (0, 2, 4, 8)] == ["#   ", "#   ", "##  ", "####"]


@pytest.mark.parametrize("width", [80, 200])
def test_one_row_for_each_m_under_the_winners_schedule(width):
    head, *rows = drawn(make_report(), width)
    assert head.startswith("throughput")
    assert [row.split()[2] for row in rows] == ["1", "2", "4", "6", "8", "16"]
    assert all(len(row) <= width for row in rows)
    best = next(row for row in rows if "128.0 estimated" in row)
    assert best.startswith("m = 8 ")
    assert best.count("█") > max(row.count("█") for row in rows if row is not best)
    assert rows[0].count("█") >= 1


def test_a_terminal_without_unicode_gets_ascii():
    assert all(line.isascii() for line in drawn(make_report(), encoding="ascii"))
