"""One answer: whatever a report states, in terminal, page, exports and JSON, can be recomputed from its table."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import InputError
from autotune.records.base import write_record
from autotune.records.report import RelativeError
from autotune.records.verdict import Stop, StopReason, Verdict
from autotune.report.export.export import export
from autotune.report.load import read_report
from autotune.report.page.page import page
from autotune.report.recommend import is_undecided, pareto_front, recommend
from autotune.report.table import table_of
from autotune.search.goal import Goal
from autotune.search.study.shared import SharedStudy
from tests.report.page.test_page import Reader
from tests.report.printed import ANSWER, contradictions, printed, taken_apart
from tests.report.searched import report_of
from tests.search.machine import CANDIDATES, PREDICTIONS, Machine, make_search, search

DATA = Path(__file__).parent / "data"
CASES = sorted(path.stem for path in DATA.glob("*.json"))
PEAKS = sorted(max(prediction.peak_memory_bytes) for prediction in PREDICTIONS)
NOISY = {"noise": 0.15}


@dataclass(frozen=True)
class Simulated:
    """A search on the scripted machine: how that behaves, what the search is told, the memory limit in force."""

    name: str
    machine: dict[str, Any]
    options: dict[str, Any]
    limit: int | None = None


def simulated():
    """Quiet and noisy machines, with limits, failures, drift, objectives, budgets."""
    for seed in range(4):
        yield Simulated(f"noisy {seed}", NOISY | {"seed": seed}, {})
        yield Simulated(f"noisy, all measured {seed}", NOISY | {"seed": seed}, {"exhaustive": True})
    for seed in range(2):
        yield Simulated(f"one trial {seed}", NOISY | {"seed": seed}, {"trials": 1})
        yield Simulated(f"two trials {seed}", NOISY | {"seed": seed}, {"trials": 2})
        yield Simulated(f"memory {seed}", {"noise": 0.02, "seed": seed}, {"goal": Goal("memory", 0.3)})
        slowing = {"pace": lambda step: 1.0 if step < 9 else 1.5, "seed": seed, "noise": 0.02}
        yield Simulated(f"slowing {seed}", slowing, {"exhaustive": True})
    yield Simulated("quiet", {}, {})
    yield Simulated("equal", {"factor": lambda m: 10.0 / of(m).step_time_s}, {"exhaustive": True})
    yield Simulated("faster than the profile", {"factor": lambda m: 0.5, "noise": 0.05}, {})
    yield Simulated("one runs out of memory", {"fails": (1, 64)} | NOISY, {"exhaustive": True})
    for place in (1, 3, 5):
        yield Simulated(f"over a limit {place}", NOISY, {"exhaustive": True}, PEAKS[place] + 1)
    yield Simulated("does not fit", NOISY, {"allowed": [2, 3, 4]}, None)


def of(m):
    return next(p for candidate, p in zip(CANDIDATES, PREDICTIONS, strict=True) if candidate.micro_batches == m)


@pytest.fixture(params=list(simulated()), ids=lambda one: one.name)
def simulated_report(request, tmp_path):
    one = request.param
    found = search(tmp_path, Machine(**one.machine), memory_limit=one.limit, **one.options)
    return report_of(found, one.limit)


@pytest.mark.slow
def test_every_figure_of_a_simulated_search_follows_from_its_table(simulated_report, tmp_path):
    assert contradictions(simulated_report) == []
    write_record(tmp_path / "report.json", simulated_report)
    again = read_report(tmp_path / "report.json")
    assert again == simulated_report
    assert printed(again) == printed(simulated_report)


def test_a_resumed_search_states_one_figure_of_each(tmp_path):
    for seed, options in enumerate(({"trials": 2}, {"trials": 2}, {"exhaustive": True})):
        report = report_of(search(tmp_path, Machine(noise=0.1, seed=seed), **options))
        assert contradictions(report) == []
    assert report.search.earlier_trials
    assert "(earlier run)" in printed(report)


def test_a_warm_study_under_another_limit_marks_what_is_over_it(tmp_path):
    search(tmp_path, Machine(noise=0.02), exhaustive=True)
    limit = PEAKS[2] + 1
    report = report_of(search(tmp_path, Machine(noise=0.02), memory_limit=limit), limit)
    assert contradictions(report) == []
    rows = taken_apart(printed(report)).rows
    over = [row for row in rows if "over the memory limit by" in row.status]
    assert {row.m for row in over} == {
        candidate.micro_batches
        for candidate, prediction in zip(CANDIDATES, PREDICTIONS, strict=True)
        if max(prediction.peak_memory_bytes) > limit
    }
    assert report.candidates[report.sweet_spot.candidate].over_limit_bytes is None


def test_controllers_that_share_a_study_state_one_figure_of_each(tmp_path):
    address, names = f"sqlite:///{tmp_path}/shared.db", set()
    for seed, options in enumerate(({"trials": 3}, {"exhaustive": True})):
        study = SharedStudy(address, 1.0, "scripted", CANDIDATES, False)
        try:
            found = make_search(tmp_path, Machine(noise=0.1, seed=seed), study=study, **options)
            found.run()
            report = report_of(found)
            names.add(report.search.controller)
        finally:
            study.close()
        assert contradictions(report) == []
    assert len(names) == 2
    assert "(another controller)" in printed(report)


@pytest.mark.parametrize("case", CASES)
def test_a_report_of_an_older_version_contradicts_itself_no_more(case):
    report = read_report(DATA / f"{case}.json")
    assert contradictions(report) == []
    stored = json.loads((DATA / f"{case}.json").read_text())["sweet_spot"]
    assert report.sweet_spot.candidate == stored["candidate"]  # what a launcher runs stays


def test_the_handed_contradictions_are_mended():
    def answer(case):
        return ANSWER.fullmatch(taken_apart(printed(read_report(DATA / f"{case}.json"))).line("Sweet spot: "))

    first, knee, undisturbed = (answer(f"contradiction{rest}") for rest in ("", "_knee", "_undisturbed"))
    assert first["speedup"] == ", 1.00x the naive m = 1"  # it was 1.15x, beside 99.0 and 98.7 in the table
    assert first["reason"].startswith("it is tied with m = 1 GPipe within 1%")
    assert knee["undecided"] == "undecided between m = 16 and 64"
    assert knee["reason"].endswith("m = 64 1F1B is 1.3% faster")
    assert undisturbed["speedup"] == ", 1.67x the naive m = 1"  # it was 1.61x, beside 180.4 and 108.3
    text = printed(read_report(DATA / "contradiction_undisturbed.json"))
    assert "stopped early, 7 raw steps" in text
    assert "pruned" not in text


def test_a_contradiction_is_found():
    """The test of the test: a report whose table says something else than the rest."""
    report = read_report(DATA / "two_stages.json")
    spot = report.sweet_spot
    for update in (
        {"speedup_over_naive": 1.16},
        {"reason": "it has the highest throughput, 12.0% above the next"},
        {"throughput_seq_s": 456.0},
        {"knee": spot.knee.model_copy(update={"at": spot.knee.at.model_copy(update={"micro_batches": 4})})},
        {"ties": ("m = 2 and m = 4 are within 1%; 2 needs 4.0 MiB less.",)},
        {"certainty": 0.5},
        {"candidate": 2},
    ):
        wrong = report.model_copy(update={"sweet_spot": spot.model_copy(update=update)})
        found = contradictions(wrong) if update != {"certainty": 0.5} else printed(wrong) != printed(report)
        assert found, update
    point = report.search.pareto_front[-1].model_copy(update={"throughput_seq_s": 999.0})
    front = report.search.model_copy(update={"pareto_front": (*report.search.pareto_front[:-1], point)})
    assert contradictions(report.model_copy(update={"search": front}))


def undecided(certainty=0.55):
    """A report of a noisy search whose pick is not sure."""
    report = read_report(DATA / "two_stages.json")
    verdict = Verdict(
        pick=1, certainty=certainty, undecided_with=(2, 0), tolerance=0.01, stop=Stop(reason=StopReason.TRIALS, limit=3)
    )
    return report.model_copy(update={"sweet_spot": recommend(report.candidates, verdict, None)})


def test_an_undecided_pick_is_called_so_everywhere(tmp_path):
    report = undecided()
    between = "undecided between m = 1 GPipe, m = 2 1F1B and m = 4 1F1B (55% sure)"
    text = printed(report)
    assert f"Sweet spot: {between}; m = 2 micro-batches of 16 under 1F1B" in text
    statuses = [row.status.split(",")[0] for row in taken_apart(text).rows]
    assert statuses[:3] == ["undecided", "recommended but undecided", "undecided"]
    assert contradictions(report) == []
    (note, *_) = export(report, "shell").notes
    assert note.startswith(f"the report is {between}; m = 2 1F1B is exported because it has the highest throughput")
    assert any(text.startswith(f"Sweet spot: {between}") for text in Reader(page(report)).texts)
    write_record(tmp_path / "report.json", report)
    stored = json.loads((tmp_path / "report.json").read_text())["sweet_spot"]
    assert (stored["certainty"], stored["undecided_with"], stored["baseline"]) == (0.55, [2, 0], 0)


@pytest.mark.parametrize(("certainty", "said"), [(1.0, ">99%"), (0.996, ">99%"), (0.99, "99%"), (0.8, "80%")])
def test_no_certainty_is_called_complete(certainty, said):
    report = undecided(certainty)
    assert not is_undecided(report.sweet_spot)
    assert f"with a probability of {said}." in printed(report)
    assert "100%" not in printed(report).split("Sweet spot")[1]
    assert len(export(report, "shell").notes) == len(export(undecided(), "shell").notes) - 1


def test_what_ended_a_short_search_is_said_and_nothing_is_called_separated(tmp_path):
    for number, options in enumerate(({"trials": 1}, {"budget_s": 0.05})):
        report = report_of(search(tmp_path / str(number), Machine(noise=0.05), **options))
        text = printed(report)
        assert "separated" not in text
        assert ("the limit of 1 trial" if "trials" in options else "the budget of 0.05 s") in text


def test_a_machine_that_was_faster_is_not_called_slower():
    report = read_report(DATA / "two_stages.json")
    rows = [row.model_copy(update={"pace": 0.72}) if row.measurement else row for row in report.candidates]
    text = printed(report.model_copy(update={"candidates": tuple(rows)}))
    assert "machine 1.39x faster then" in text
    assert "slower" not in text


@pytest.mark.parametrize("case", ["contradiction", "four_stages"])
def test_the_page_states_what_the_table_states(case):
    report = read_report(DATA / f"{case}.json")
    texts = Reader(page(report)).texts
    found = taken_apart(printed(report))
    assert found.line("Sweet spot: ") in texts
    for row in found.rows:
        assert row.rate_text in texts
    for cells in table_of(report, is_detailed=False)[1]:
        assert set(cells) <= set(texts)


def test_random_rows_are_recommended_without_contradiction():
    """Rows as no search would leave them: whichever candidate is picked, what is said of it is true of the table."""
    draw = random.Random(0)
    report = read_report(DATA / "contradiction.json")
    assert len(report.candidates) == 6
    for _ in range(100):
        rows = []
        for row in report.candidates:
            rate = draw.choice((100.0, 101.0, 99.2, 95.0, draw.uniform(20, 200)))
            measurement = row.measurement.model_copy(update={"throughput_seq_s": rate})
            over = draw.choice((None, None, None, 2**20))
            error = RelativeError(step_time=rate / row.prediction.throughput_seq_s - 1)
            update = {"measurement": measurement, "relative_error": error, "over_limit_bytes": over, "loses_to": None}
            rows.append(row.model_copy(update=update))
        able = [index for index, row in enumerate(rows) if row.over_limit_bytes is None]
        if not able:
            continue
        pick, objective = draw.choice(able), draw.choice(("throughput", "memory"))
        verdict = Verdict(
            pick=pick,
            certainty=draw.random(),
            undecided_with=tuple(index for index in able if index != pick)[:2],
            objective=objective,
            tolerance=0.01 if objective == "throughput" else 0.05,
            stop=Stop(reason=StopReason.DECIDED),
        )
        spot = recommend(rows, verdict, report.memory_limit_bytes)
        search = report.search.model_copy(update={"pareto_front": pareto_front(rows)})
        update = {"candidates": tuple(rows), "sweet_spot": spot, "search": search}
        assert contradictions(report.model_copy(update=update)) == []


def test_a_report_whose_figures_cannot_be_is_refused_in_one_line(tmp_path):
    path = tmp_path / "report.json"
    stored = json.loads((DATA / "two_stages.json").read_text())
    for change, words in (
        (lambda report: report["sweet_spot"].update(candidate=7), "candidate 7 is named, and there are only 0 to 4"),
        (lambda report: report["candidates"][0]["measurement"].update(throughput_seq_s=0.0), "no sweet spot follows"),
    ):
        report = json.loads(json.dumps(stored))
        change(report)
        path.write_text(json.dumps(report))
        with pytest.raises(InputError, match=words) as error:
            read_report(path)
        assert str(path) in str(error.value)
