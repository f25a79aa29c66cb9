"""What a page says of each kind of report: a mark in every chart, a colour for each thing, nothing empty, and nothing
called measured that was not."""

import re

import pytest

from autotune.records.report import Report
from autotune.report.page.colours import INK, OTHERS, PICK
from autotune.report.page.page import page
from autotune.report.page.scale import sections_of as sections_of_scale
from autotune.report.page.sections import rival_of, sections_of, table_section
from autotune.report.page.tiles import tiles
from tests.report.export.reports import make_report
from tests.report.page.reports import (
    command_report,
    fitted_report,
    predicted_report,
    recorded_report,
    small_m_report,
)
from tests.report.page.test_page import Reader
from tests.report.scales import make_plan

ONE_THING = {"communication": "messages", "message": "messages", "optimizer and overhead": "optimizer"}
KINDS = {
    "run": lambda folder: make_report(),
    "recorded": recorded_report,
    "m = 1 wins": lambda folder: small_m_report(),
    "command": lambda folder: command_report(),
    "predicted": predicted_report,
    "fitted": fitted_report,
}


@pytest.fixture(params=KINDS, scope="module")
def report(request, tmp_path_factory):
    return KINDS[request.param](tmp_path_factory.mktemp("report"))


def charts(report):
    return [(section, chart) for section in sections_of(report) for chart in section.charts]


def stars(chart):
    """Where a chart's figure has stars: x and y of each."""
    marks = [one for one in chart.figure.renderers if getattr(one.glyph, "marker", None) == "star"]
    return [(one.data_source.data["x"][0], one.data_source.data["y"][0]) for one in marks]


def test_the_pick_is_marked_in_every_chart(report):
    pick = report.candidates[report.sweet_spot.candidate]
    shown = charts(report)
    assert {section.title for section, _ in shown} >= {"Throughput", "Where the time goes", "One step"}
    for section, chart in shown:
        if section.title in ("One step", "Measured beside predicted"):
            assert chart.title.startswith("★ ") == chart.title.removeprefix("★ ").startswith(pick.label)
            continue
        ((x, _),) = stars(chart)
        assert chart.keys[0].colour == PICK
        if section.title == "Throughput":
            assert x == pick.micro_batches
        elif section.title != "Real runs" and "against memory" not in section.title:
            assert f"m={pick.micro_batches}" in (x, x[0])
    assert table_section(report).marked == report.sweet_spot.candidate


def test_a_colour_means_one_thing(tmp_path):
    plan = make_plan(("1F1B", "Interleaved1F1B"), limit=2**40)
    split = make_report((8, "ZBVZeroBubble"), virtual_stages=2)
    keys = [
        key
        for one in (recorded_report(tmp_path), small_m_report(), split, make_report(failed=[(16, "GPipe")]))
        for _, chart in charts(one)
        for key in chart.keys
    ]
    keys += [key for section in sections_of_scale(plan) for chart in section.charts for key in chart.keys]
    meaning = {}
    for key in keys:
        if key.colour not in (INK, OTHERS):  # candidates and what was measured; other schedules: told apart by shape
            meaning.setdefault(key.colour, set()).add(ONE_THING.get(key.label, key.label.split(",")[0]))
    assert len(meaning) > 12
    assert meaning.pop(PICK) == {"sweet spot", "the best of the most ranks"}
    red = [colour for colour, names in meaning.items() if "memory limit" in names]
    assert all(meaning.pop(colour) <= {"memory limit", "failed"} for colour in red)
    assert {colour: names for colour, names in meaning.items() if len(names) > 1} == {}


def test_nothing_is_empty(report):
    for tile in tiles(report):
        assert tile.value and "None" not in tile.value + tile.note
    found = Reader(page(report))
    assert all(cell for section in sections_of(report) for row in section.rows for cell in row)
    assert not [text for text in found.texts if text in ("None", "nan", "-inf")]
    for section in sections_of(report):
        if not section.charts and not section.rows:
            assert section.title not in found.texts


def test_what_was_not_measured_is_not_called_so(report):
    words = " ".join(Reader(page(report)).texts)
    words = words[: words.index("Where this comes from")]
    if report.is_predicted:
        assert not re.search(r"\bmeasured\b(?! by)|Real runs|step vs raw|before any ran", words)
    if report.timed_runs:
        assert "Runs made elsewhere" in words and "as fitted" in words
    if report.is_fitted:
        assert "fitted to the steps" in words and "predicted before any ran" not in words
    if report.recorded_step is None:
        assert "--record-timeline saw it" not in words and "Measured beside predicted" not in words


def test_a_page_of_a_run_says_measured_where_that_is_so(tmp_path):
    report = recorded_report(tmp_path)
    words = " ".join(Reader(page(report)).texts)
    for said in (
        "m = 8 1F1B, measured",
        "m = 8 1F1B, predicted",
        "Measured beside predicted",
        "predicted before any ran",
    ):
        assert said in words
    (section,) = [one for one in sections_of(report) if one.title == "Measured beside predicted"]
    seconds = {row[0]: row[1:] for row in section.rows}
    idle, real = (float(text.split()[0]) for text in seconds["idle"])
    assert real == pytest.approx(1.1 * idle, rel=0.01)
    assert seconds["optimizer and overhead"][1] != seconds["optimizer and overhead"][0]


def test_where_m_1_wins_the_page_shows_what_more_would_cost():
    report = small_m_report()
    rival = rival_of(report)
    assert rival.micro_batches > 1
    texts = Reader(page(report)).texts
    (line,) = [text for text in texts if text.startswith("Cutting the batch into micro-batches does not pay here")]
    assert rival.label in line and f"{1 - rival.rate / report.candidates[report.sweet_spot.candidate].rate:.1%}" in line
    counts = sorted({row.micro_batches for row in report.candidates if row.schedule in ("GPipe", "1F1B")})
    for section in sections_of(report):
        if section.title in ("Peak memory", "Where the time goes"):
            assert sorted({int(row[0]) for row in section.rows}) == counts
        if section.title == "One step":
            assert len({chart.title for chart in section.charts}) == 2


def test_tiles_are_the_answer():
    report = make_report()
    limited = Report.model_validate(report.model_dump(by_alias=True) | {"memory_limit_bytes": 2**30})
    named = {tile.name: tile for tile in tiles(limited)}
    assert named["micro-batches"].value == "m = 8"
    assert named["tokens/s"].value == "4,100"  # 128 sequences of 32 tokens, three digits
    assert "128.0 sequences/s" in named["tokens/s"].note
    assert named["peak memory of the fullest rank"].note == "0.0% of 1.0 GiB, measured"
    share = report.candidates[report.sweet_spot.candidate].prediction.bubble_share
    assert named["bubble"].value == f"{share:.0%}"
    assert "sure" not in named  # this report does not know


def test_the_command_that_exports_names_the_report(tmp_path):
    texts = Reader(page(make_report(), tmp_path / "my report.json")).texts
    assert f"autotune export '{tmp_path}/my report.json' --to megatron-lm" in texts
    assert "Hand it on" not in Reader(page(make_report())).texts


def test_what_an_undecided_pick_could_be_instead_has_a_hollow_star():
    report = make_report()
    spot = report.sweet_spot
    pick = report.candidates[spot.candidate]
    alike = [row for row in report.candidates if row.family == pick.family and row is not pick]
    rival = report.candidates.index(alike[-1])
    unsure = spot.model_copy(update={"certainty": 0.5, "undecided_with": (rival,)})
    marked = {}
    for section, chart in charts(report.model_copy(update={"sweet_spot": unsure})):
        marked.setdefault(section.title, []).append([key.label for key in chart.keys[: len(stars(chart))]])
        if section.title == "Throughput":
            assert [x for x, _ in stars(chart)] == [pick.micro_batches, alike[-1].micro_batches]
    both = [["recommended, but undecided", "might be better"]]
    assert marked["Throughput"] == marked["Where the time goes"] == both
    assert all(len(stars(chart)) <= 1 for _, chart in charts(report))
