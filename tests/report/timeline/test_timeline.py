"""Drawings of simulated steps, and what is said below them."""

import io
import time

import pytest
from rich.console import Console

from autotune.predict.schedules import build_schedule, custom_schedule, parse_row
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.report.timeline.step import Step
from autotune.report.timeline.timeline import cell, draw, print_timeline, summary_lines, time_axis


def step(schedule, t_f=1.0, t_b=2.0, link=0.0, **more):
    """Equal stages; the halves of a split backward take half of ``t_b`` each."""
    s = schedule.stages
    halves, links = [t_b / 2] * s, [link] * (s - 1)
    timeline = simulate(schedule, Costs([t_f] * s, [t_b] * s, halves, halves, links, links))
    return Step(schedule.name, timeline, **{"unit_times": True} | more)


def drawn(shown, width):
    return [line.plain for line in draw(shown, width)]


def printed(shown, **more):
    out = io.StringIO()
    print_timeline(shown, Console(file=out, **{"width": 60} | more))
    return out.getvalue()


def test_1f1b_drawing():
    assert drawn(step(build_schedule("1F1B", 2, 2)), 52) == [
        "1F1B, 2 ranks, m = 2 micro-batches; unit times: t_f = t_b = 1 t, messages take none",
        "        |0                  |5 t                idle",
        "rank 0  F0--F1--........B0======....B1======     33%",
        "rank 1  ....F0--B0======F1--B1======........     33%",
        "        F-- forward   B== backward   ... idle",
    ]


def test_messages_under_way_are_gaps():
    """GPipe waits for each message where it needs it, so every one of them is a gap of one unit: rank 1 before F1."""
    shown = step(build_schedule("GPipe", 2, 2), 0.1, 0.2, link=0.1, unit_times=False, micro_batch_size=4)
    assert drawn(shown, 62)[:4] == [
        "GPipe, 2 ranks, m = 2 micro-batches of 4",
        "        |0             |500 ms        |1000 ms     idle",
        "rank 0  F0-F1-..................B0====...B1====     54%",
        "rank 1  ......F0-...F1-B0====B1====............     54%",
    ]


def test_zero_bubble_drawing_names_the_stages_where_there_are_several():
    assert drawn(step(build_schedule("ZBVZeroBubble", 2, 2, 2)), 60)[2:] == [
        "rank 0  0F00F1...3F03I03W03F13I13W10I00W0...0I10W1     14%",
        "rank 1  ...1F02F01F12F12I02W01I01W02I12W11I11W1...     14%",
        "        F-- forward   I~~ input gradient   W## weight gradient   ... idle",
    ]


def test_a_users_own_numbers_are_kept():
    schedule = custom_schedule([parse_row("F0 B0", 0)])
    assert drawn(step(schedule, first_micro_batch=1), 52)[2] == "rank 0  F1----------B1======================      0%"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("F", 3, None, 5), "F3---"),
        (("B", 12, None, 3), "B12"),
        (("B", 12, None, 2), "B="),
        (("I", 3, 2, 4), "2I3~"),
        (("W", 3, 2, 2), "W3"),
        (("W", 30, 12, 1), "W"),
    ],
)
def test_a_cell_shows_as_much_as_fits(arguments, text):
    assert cell(*arguments) == text


@pytest.mark.parametrize("width", [40, 41, 67, 80, 133, 400])
@pytest.mark.parametrize("sizes", [("1F1B", 4, 8), ("GPipe", 3, 5), ("Interleaved1F1B", 4, 8, 2), ("1F1B", 12, 300)])
def test_a_drawing_fits_its_width_and_every_row_is_as_long(sizes, width):
    shown = step(build_schedule(*sizes), t_f=0.00123, t_b=0.00311, link=0.0001, unit_times=False)
    axis, *rows = drawn(shown, width)[1 : 2 + sizes[1]]
    assert {len(row) for row in (axis, *rows)} == {len(axis)}
    assert len(axis) <= width


def test_widths_are_proportional_to_times():
    """At 4 columns per unit of time every F is 4 wide and every B 8, wherever it lies."""
    row = drawn(step(build_schedule("1F1B", 4, 8)), 8 + 8 + 4 * 33)[2]
    for micro_batch in range(8):
        assert f"F{micro_batch}--" in row
        assert f"B{micro_batch}======" in row


def test_where_actions_are_narrower_than_a_column_it_is_said():
    """Columns are then samples: each shows what the rank does in its middle."""
    *_, legend, note = drawn(step(build_schedule("1F1B", 2, 40)), 50)
    assert legend.endswith("idle")
    assert note.startswith("A column is 3.62 t, longer than some actions")
    assert "93 of 160 actions fall between" in note
    assert "column is" not in drawn(step(build_schedule("1F1B", 2, 4)), 80)[-1]


def test_samples_are_what_the_rank_does_at_that_moment():
    shown = step(build_schedule("1F1B", 2, 40))
    row = drawn(shown, 50)[2][8:42]
    for column, letter in enumerate(row):
        moment = (column + 0.5) * shown.timeline.makespan / len(row)
        spans = zip(shown.timeline.start(0), shown.timeline.end(0), shown.schedule.actions(0), strict=True)
        kinds = [action.kind for start, end, action in spans if start <= moment < end]
        assert [letter] == (kinds or ["."])


def test_thousands_of_micro_batches_are_drawn_in_time():
    begun = time.process_time()
    text = printed(step(build_schedule("1F1B", 8, 3000)), width=120)
    assert time.process_time() - begun < 10
    assert max(map(len, text.split("\n")[:10])) <= 120


def test_time_axes():
    assert time_axis(40, 0.25, True) == "|0                  |5 t"
    assert time_axis(40, 0.001, False).split() == ["|0", "|10", "ms", "|20", "ms", "|30", "ms"]
    assert time_axis(40, 2e-6, False).split()[1:3] == ["|20", "µs"]
    assert time_axis(40, 0.7, False).split()[1:3] == ["|10", "s"]


def test_words():
    shown = step(build_schedule("1F1B", 2, 2), link=0.5, optimizer_s=0.5, overhead_s=1)
    assert summary_lines(shown) == [
        "Step: 12 t = 10.5 t as drawn + optimizer 0.5 t + overhead of the step 1 t.",
        "Idle: 42.9% of the device time, the same on every rank.",
        "Critical path: 6 of 8 actions, 2 changes of rank; longest on rank 1: 6 t, 57% of the time; "
        "messages under way: 1.5 t.",
    ]


def test_uneven_idle_time_names_its_ends():
    schedule = build_schedule("GPipe", 2, 1)
    timeline = simulate(schedule, Costs([1, 2], [1, 2], [1, 1], [1, 1], [0], [0]))
    words = summary_lines(Step("GPipe", timeline, unit_times=True))
    assert words[1] == "Idle: 50.0% of the device time, from 33.3% (rank 1) to 66.7% (rank 0)."


def test_colour_only_where_the_console_has_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = step(build_schedule("1F1B", 2, 2))
    coloured = printed(shown, force_terminal=True, color_system="standard")
    assert "\x1b[37;44mF0" in coloured
    assert "\x1b[30;42mB0" in coloured
    assert "\x1b" not in printed(shown)
    assert "\x1b" not in printed(shown, force_terminal=True, color_system="standard", no_color=True)
