"""A step that is told: what a search that had timed it itself would say, of runs and of predictions."""

import pytest

from autotune.errors import UsageError
from autotune.predict.predict import predict
from autotune.report.paper.predicted import predicted_report
from autotune.report.recommend import is_undecided
from autotune.report.table import table_of
from autotune.tuning.learned import Told, told_report
from tests.report.searched import report_of
from tests.search.machine import CANDIDATES, PREDICTIONS, PROFILE, Machine, make_search


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The report of a run on the scripted machine, which is as fast as predicted."""
    search = make_search(tmp_path_factory.mktemp("told"), Machine(noise=0.005), trials=3)
    search.run()
    return report_of(search)


def rows(report):
    return {row.micro_batches: row for row in report.candidates}


def test_steps_of_a_candidate_that_had_not_run_may_make_it_win(ran):
    best = rows(ran)[ran.sweet_spot.micro_batches]
    m = max((row for row in ran.candidates if row.measurement is None), key=lambda row: row.rate).micro_batches
    seconds = best.estimate.step_time_s / 1.05
    once = told_report(ran, Told(m, str(seconds)))
    assert is_undecided(once.sweet_spot)  # one step alone may have been disturbed
    told = told_report(once, Told(m, str(seconds)))
    assert told.sweet_spot.micro_batches == m
    assert not is_undecided(told.sweet_spot)
    assert rows(told)[m].measurement.step_times_s == (seconds, seconds)
    assert rows(told)[m].estimate.step_time_s == pytest.approx(seconds, rel=0.01)
    assert rows(told)[m].relative_error.step_time > 0.02
    assert told.sweet_spot.throughput_seq_s == rows(told)[m].rate
    assert told.kind == ran.kind
    assert told.search.trials == ran.search.trials
    assert told.warnings[-1].startswith(f"a step of m = {m} 1F1B that was made elsewhere took ")


def test_a_step_that_is_as_predicted_changes_little(ran):
    m = ran.sweet_spot.micro_batches
    before = rows(ran)[m]
    told = told_report(ran, Told(m, str(before.measurement.step_time_s)))
    assert told.sweet_spot.micro_batches == m
    assert rows(told)[m].rate == pytest.approx(before.rate, rel=0.01)
    assert len(rows(told)[m].measurement.step_times_s) == len(before.measurement.step_times_s) + 1
    assert not is_undecided(told.sweet_spot)


def test_a_candidate_that_failed_has_run_once_its_step_is_told(tmp_path):
    search = make_search(tmp_path, Machine(fails=(1,)), trials=3)
    search.run()
    report = report_of(search)
    assert rows(report)[1].failure
    told = told_report(report, Told(1, "70s", peak_memory="1GiB"))
    assert rows(told)[1].failure is None
    assert rows(told)[1].measurement.peak_memory_bytes == (2**30,) * 4
    assert told.sweet_spot.baseline == 0


def prediction():
    return predicted_report(PROFILE, list(zip(CANDIDATES, PREDICTIONS, strict=True)), None)


def test_all_of_a_prediction_follow_a_step_that_is_slower(ran):
    before = prediction()
    m = before.sweet_spot.micro_batches
    told = told_report(before, Told(m, str(2 * rows(before)[m].prediction.step_time_s)))
    assert told.is_predicted
    for other, row in rows(told).items():
        if other != m:
            assert row.estimate.step_time_s > 1.2 * row.prediction.step_time_s
            assert row.estimate.step_time_low_s < row.estimate.step_time_s < row.estimate.step_time_high_s
    names, cells = table_of(told)
    steps = [row[names.index("step")] for row in cells]
    assert steps != [row[table_of(before)[0].index("step")] for row in table_of(before)[1]]
    assert rows(told)[m].prediction == predict(PROFILE, rows(told)[m].candidate, None)


def test_steps_that_are_told_one_after_the_other_add_up(ran):
    report = prediction()
    for seconds in ("40s", "41s", "39s"):
        report = told_report(report, Told(8, seconds))
    assert rows(report)[8].measurement.step_times_s == (40.0, 41.0, 39.0)
    assert rows(report)[8].estimate.step_time_s == pytest.approx(40.0, rel=0.1)
    assert len(report.warnings) == 3


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (Told(3, "5s"), "the report has no candidate with m = 3 and what else was given; its m are 1, 2, 4, 8"),
        (Told(8, "5s", schedule="GPipe"), "the report has no candidate with m = 8 and what else was given"),
        (Told(8, "soon"), "--step-time: write a number with a unit"),
        (Told(8, "0"), "--step-time: a step takes more than 0 seconds"),
    ],
)
def test_what_is_wrong_is_said(ran, told, message):
    with pytest.raises(UsageError, match=message):
        told_report(ran, told)
