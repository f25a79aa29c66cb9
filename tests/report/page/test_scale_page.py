"""The page of a plan: one file, every figure in a table, and in a real browser without a complaint."""

from importlib.util import find_spec

import pytest

from autotune.plan.scale import ScalePlan
from autotune.report.page.scale import scale_page
from autotune.report.paper.scale import ON_PAPER, cells, trust
from tests.report.page.browser import CHROMIUM, opened
from tests.report.page.test_browser import COLUMNS
from tests.report.page.test_page import EVIL, MOST_BYTES, Reader
from tests.report.scales import make_plan

PLAN = make_plan(("1F1B", "Interleaved1F1B"), limit=2**40)


@pytest.fixture(scope="module")
def usual():
    return scale_page(PLAN)


def test_it_is_one_file_that_needs_nothing_else(usual):
    assert len(usual.encode()) < MOST_BYTES
    found = Reader(usual)
    assert not [(name, value) for name, value in found.attributes if name in ("src", "href")]


def test_it_says_what_it_is_and_how_far_to_trust_it(usual):
    texts = Reader(usual).texts
    assert ON_PAPER in texts
    for heading in ("Efficiency", "The best m", "Where the time goes", "How far to trust this", "The network"):
        assert heading in texts
    for point in PLAN.points:
        assert set(cells(point)) <= set(texts)
        assert trust(PLAN, point) in texts
    assert set(PLAN.assumptions) <= set(texts)


def test_no_string_of_a_profile_becomes_code(usual):
    document = PLAN.model_dump(mode="json")
    document["environment"] |= {"device": EVIL, "devices": [EVIL], "hostname": EVIL, "platform": EVIL}
    text = scale_page(ScalePlan.model_validate(document))
    assert EVIL not in text
    assert text.count("<script") == usual.count("<script")
    assert any(EVIL in shown for shown in Reader(text).texts)


@pytest.mark.skipif(CHROMIUM is None or find_spec("playwright") is None, reason="needs Chromium and playwright")
@pytest.mark.slow
def test_the_plots_hold_the_plans_own_numbers(usual, tmp_path):
    path = tmp_path / "scale.html"
    path.write_text(usual)
    with opened(path) as (browser, complaints, _):
        assert complaints == []
        columns = browser.evaluate(COLUMNS)
    for name in ("1F1B", "Interleaved1F1B x2"):
        points = [point for point in PLAN.points if point.schedule_text == name]
        expected = [100 * point.efficiency for point in points]
        found = [one for one in columns if "worst" in one and one["efficiency"] == pytest.approx(expected)]
        assert found
        assert found[0]["p"] == [point.ranks for point in points]
        worst = [100 * one.efficiency * one.step_time_s / one.worst_s for one in points]
        assert found[0]["worst"] == pytest.approx(worst)
    bubbles = [100 * point.time_split_s.bubble / point.step_time_s for point in PLAN.points]
    assert any(one["bubble"] == pytest.approx(bubbles) for one in columns if "bubble" in one)
