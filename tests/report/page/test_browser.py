"""The page in a real browser: it opens, its plots hold the report's numbers, the pointer finds the action."""

from importlib.util import find_spec

import pytest

from autotune.records.report import Report
from autotune.report.bars import under_one_schedule
from autotune.report.page.page import page
from tests.report.export.reports import make_report
from tests.report.page.browser import CHROMIUM, opened
from tests.report.page.test_page import evil_report

pytestmark = [
    pytest.mark.slow,  # a browser
    pytest.mark.skipif(CHROMIUM is None or find_spec("playwright") is None, reason="needs Chromium and playwright"),
]
REPORT = make_report()
COLUMNS = """roots => Bokeh.documents[0].roots().flatMap(plot => plot.renderers.map(
    one => Object.fromEntries(Object.entries(one.data_source.data).map(([name, values]) => [name, [...values]]))))"""
PLACE = """([title, x, y]) => {
    const view = charts().find(view => view.el.closest(".chart").ariaLabel.startsWith(title));
    const box = view.el.getBoundingClientRect();
    const frame = view.frame;
    return [box.x + frame.x_scale.compute(x), box.y + frame.y_scale.compute(y)];
}"""


@pytest.fixture
def shown(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(REPORT))
    with opened(path) as found:
        yield found


def test_it_opens_without_a_network_and_without_a_complaint(shown):
    browser, complaints, _ = shown
    assert complaints == []
    assert browser.title() == "autotune: 48 layers, 4 stages, batch 64 on None"
    assert browser.locator(".chart").count() >= 4


def test_the_plots_hold_the_reports_own_numbers(shown):
    columns = shown[0].evaluate(COLUMNS)
    curve = under_one_schedule(REPORT)
    predicted, *_ = [one for one in columns if "predicted" in one]
    expected = {row.micro_batches: row.prediction.throughput_seq_s for row in curve}
    assert dict(zip(predicted["m"], predicted["predicted"], strict=True)) == pytest.approx(expected)
    drawn = {m for one in columns if "rate" in one and "m" in one for m in one["m"]}
    assert drawn == {row.micro_batches for row in REPORT.candidates}
    (measured,) = [one for one in columns if "rate" in one and "steps" in one and "m" in one]
    assert (measured["m"], measured["rate"]) == ([8], [128.0])
    split, *_ = [one for one in columns if "bubble" in one]
    assert split["bubble"] == pytest.approx([row.prediction.time_split_s.bubble for row in curve])
    starts = [one for one in columns if "micro_batch" in one and "ms" in one]
    assert sum(len(one["start"]) for one in starts) == 2 * 4 * 8 + 2 * 4 * 1  # every action of both steps
    messages = [one for one in columns if "made" in one]
    assert sum(len(one["made"]) for one in messages) == 2 * 3 * (8 + 1)  # forward and back over three boundaries


def test_the_action_under_the_pointer_is_named(shown):
    browser, _, _ = shown
    row = REPORT.candidates[REPORT.sweet_spot.candidate]
    forward = 0.01 + (0.32 - 0.01) * 7 / 63  # of 8 sequences, between those of 1 and 64
    browser.locator("h2", has_text="One step").scroll_into_view_if_needed()
    x, y = browser.evaluate(PLACE, [f"★ m = {row.micro_batches} {row.schedule}, predicted", 1.5 * forward, 0])
    browser.mouse.move(x, y)
    browser.get_by_text("forward of micro-batch 1 on stage 0, rank 0").first.wait_for(timeout=5000)


def test_a_report_with_scripts_in_its_strings_shows_them_as_text(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(Report.model_validate(evil_report())))
    with opened(path) as (browser, complaints, _):
        assert complaints == []
        assert browser.get_by_text("onerror=alert(1)").count() > 3


def test_a_large_report_opens(tmp_path):
    report = make_report((128, "1F1B"), counts=(*range(1, 100), 128), ranks=16, batch=512)
    assert len(report.candidates) > 180
    path = tmp_path / "report.html"
    path.write_text(page(report))
    assert path.stat().st_size < 6 * 10**6
    with opened(path) as (browser, complaints, _):
        assert complaints == []
        assert browser.evaluate(COLUMNS)
