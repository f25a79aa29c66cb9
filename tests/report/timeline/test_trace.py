"""The timeline as JSON and as a trace that Perfetto opens."""

import json
from itertools import pairwise

import pytest

from autotune.errors import UsageError
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.report.timeline.step import Step
from autotune.report.timeline.trace import check_format, save_step, timeline_document, trace_document

SCHEDULE = build_schedule("ZBVZeroBubble", 3, 7, 2)
THIRDS = [1 / 3 + s / 7 for s in range(6)]
TIMELINE = simulate(SCHEDULE, Costs(THIRDS, THIRDS, THIRDS, THIRDS, [1 / 11] * 5, [1 / 13] * 5))
STEP = Step("ZBVZeroBubble", TIMELINE, unit_times=False, micro_batch_size=4, optimizer_s=0.5)


def events(phase):
    return [event for event in trace_document(STEP)["traceEvents"] if event["ph"] == phase]


def test_every_rank_is_a_named_thread_of_one_process():
    threads = {e["tid"]: e["args"]["name"] for e in events("M") if e["name"] == "thread_name"}
    assert threads == {0: "rank 0", 1: "rank 1", 2: "rank 2"}
    assert {e["pid"] for e in events("M") + events("X")} == {0}
    assert "ZBVZeroBubble, p = 3, m = 7" in [e["args"]["name"] for e in events("M") if e["name"] == "process_name"]


def test_every_action_is_one_complete_event():
    found = [(e["tid"], e["args"]["kind"], e["args"]["stage"], e["args"]["micro_batch"]) for e in events("X")]
    assert found == [(rank, *action) for rank in range(3) for action in SCHEDULE.actions(rank)]
    assert [e["ts"] for e in events("X")] == pytest.approx(TIMELINE.starts * 1e6, abs=1e-3)
    assert [e["dur"] for e in events("X")] == pytest.approx((TIMELINE.ends - TIMELINE.starts) * 1e6, abs=2e-3)


def test_events_of_a_thread_do_not_overlap_by_a_nanosecond():
    by_rank = [[e for e in events("X") if e["tid"] == rank] for rank in range(3)]
    for row in by_rank:
        for before, after in pairwise(row):
            assert round((before["ts"] + before["dur"]) * 1000) <= round(after["ts"] * 1000)


def test_the_json_form_lists_actions_and_totals():
    document = timeline_document(STEP)
    assert document["kind"] == "autotune.timeline"
    assert document["step_time_s"] == TIMELINE.makespan + 0.5
    assert document["bubble_fraction"] == TIMELINE.bubble_fraction
    assert [row["busy_s"] + row["idle_s"] for row in document["ranks"]] == pytest.approx([TIMELINE.makespan] * 3)
    assert len(document["actions"]) == len(TIMELINE.ends)
    assert set(document["actions"][0]) == {"rank", "kind", "stage", "micro_batch", "start_s", "end_s"}
    chain = [document["actions"][index] for index in document["critical_path"]]
    assert chain[0]["start_s"] == 0
    assert chain[-1]["end_s"] == TIMELINE.makespan


@pytest.mark.parametrize("form", ["json", "trace"])
def test_files_are_strict_json(form, tmp_path):
    path = tmp_path / "out.json"
    said = save_step(STEP, form, path, None)

    def refuse(constant):
        raise ValueError(constant)

    json.loads(path.read_text(), parse_constant=refuse)
    assert said.startswith(f"{path}: 126 actions on 3 ranks")


def test_the_drawing_is_written_as_plain_text(tmp_path):
    save_step(STEP, "text", tmp_path / "out.txt", 100)
    text = (tmp_path / "out.txt").read_text()
    assert "Critical path: " in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("form", "width", "words"),
    [("xml", None, "text, json or trace"), ("json", 80, "leave it out"), ("text", 3, "at least 40")],
)
def test_formats_and_widths_that_do_not_go_together(form, width, words):
    with pytest.raises(UsageError, match=words):
        check_format(form, width)
