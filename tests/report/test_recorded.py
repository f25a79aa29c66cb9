"""A recorded step beside the predicted one: in the drawing, the words, the JSON, the trace and the page."""

import json
from dataclasses import replace

import pytest

from autotune.records.report import RecordedStep
from autotune.report.page.page import page
from autotune.report.timeline.step import Request, simulate_step, with_recorded
from autotune.report.timeline.timeline import draw, summary_lines
from autotune.report.timeline.trace import timeline_document, trace_document
from tests.report.export.reports import make_report
from tests.report.page.test_page import Reader

LATE = 1.5  # seconds by which every action began later than predicted


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A report whose winner was recorded: everything as predicted, but later."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "plain.json").write_text(make_report().model_dump_json(by_alias=True))
    timeline = simulate_step(Request(folder / "plain.json")).timeline
    ranks = range(timeline.schedule.ranks)
    found = RecordedStep(
        candidate=make_report().sweet_spot.candidate,
        step_time_s=timeline.makespan + LATE + 0.25,
        starts_s=tuple(tuple(timeline.start(rank) + LATE) for rank in ranks),
        ends_s=tuple(tuple(timeline.end(rank) + LATE) for rank in ranks),
    )
    report = make_report().model_copy(update={"recorded_step": found})
    (folder / "report.json").write_text(report.model_dump_json(by_alias=True))
    return folder / "report.json"


@pytest.fixture
def step(path):
    return simulate_step(Request(path))


def test_the_winners_step_has_the_real_one_beside_it_and_others_have_none(path, step):
    assert step.recorded.step_time_s == pytest.approx(step.timeline.makespan + LATE + 0.25)
    assert step.recorded.optimizer_s == pytest.approx(0.25)
    assert step.lateness == pytest.approx((LATE / step.step_time_s,) * 2)
    assert simulate_step(Request(path, micro_batches=4)).recorded is None
    assert simulate_step(Request(path, micro_batches=8, schedule="GPipe")).recorded is None


def test_both_are_drawn_to_the_same_scale_and_told(step):
    shown = [line.plain for line in draw(step, 100, 2 * step.timeline.makespan)]
    assert shown[0].endswith("; as predicted")
    assert "; as it really ran" in draw(step.recorded, 100)[0].plain
    words = summary_lines(step)[-1]
    assert words.startswith("As it really ran: the step ")
    assert "1.50 s from their predicted start in the median, 1.50 s at most" in words
    assert step.recorded.critical_path == []


def test_the_json_and_the_trace_hold_both(step):
    document = json.loads(json.dumps(timeline_document(step)))
    mine, real = document["actions"], document["recorded"]["actions"]
    assert [one["start_s"] + LATE for one in mine] == pytest.approx([one["start_s"] for one in real])
    events = trace_document(step)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {0: "1F1B, p = 4, m = 8, predicted", 1: "1F1B, p = 4, m = 8, measured"}
    counts = [sum(e["ph"] == "X" and e["pid"] == process for e in events) for process in (0, 1)]
    assert counts == [len(step.timeline.starts)] * 2
    assert timeline_document(replace(step, recorded=None))["recorded"] is None


def test_the_page_draws_both(path):
    report = make_report().model_copy(update={"recorded_step": json.loads(path.read_text())["recorded_step"]})
    found = Reader(page(type(report).model_validate_json(path.read_text())))
    assert "★ m = 8 1F1B, measured" in found.texts
    assert "Measured beside predicted" in found.texts
    (row,) = [row for row in found.rows if row and row[0] == "optimizer and overhead"]
    assert row[-1] == "250.0 ms"
    alone = Reader(page(make_report())).texts
    assert "★ m = 8 1F1B, measured" not in alone and "Measured beside predicted" not in alone


def test_a_recording_of_another_length_is_left_out_and_said():
    report = make_report()
    short = RecordedStep(candidate=report.sweet_spot.candidate, step_time_s=1.0, starts_s=((0.0,),), ends_s=((1.0,),))
    step = next(iter([simulate_step(Request(stages=4, micro_batches=8, schedule="1F1B"))]))
    step = replace(step, micro_batch_size=8)
    found = with_recorded(step, report.model_copy(update={"recorded_step": short}))
    assert found.recorded is None
    assert found.notes == ("the report's recorded_step has not one time per action; left out",)
