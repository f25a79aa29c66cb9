"""The verdict: closed forms on plain numbers, rates of error over many draws, then whole reports."""

import random
from math import log

import pytest

from autotune.errors import InputError, UsageError
from autotune.records.verdict import Drift, Estimate
from autotune.report.check.figures import QUANTITIES, Figure, estimate_sigma, throughput
from autotune.report.check.judge import check, compare, parse_regression
from tests.report.check.reports import HERE, report_of, with_drift, with_profile, with_row

THROUGHPUT, MEMORY = QUANTITIES[:2]


def verdict(new, baseline, sigma=0.01, limit=0.03, quantity=THROUGHPUT):
    sides = ([Figure(value, sigma) for value in side] for side in (new, baseline))
    return compare(quantity, *sides, limit, is_judged=True)


@pytest.mark.parametrize(
    ("new", "sigma", "expected"),
    [
        (100.0, 0.005, "ok"),
        (95.0, 0.005, "regression"),
        (98.0, 0.0001, "ok"),  # worse without doubt, and within what is allowed
        (105.0, 0.005, "better"),
        (95.0, 0.05, "unclear"),  # worse than allowed, and it may be chance
        (100.0, 0.05, "unclear"),  # alike, and it may hide a regression
        (96.9, 0.0, "regression"),
        (97.2, 0.0, "ok"),
    ],
)
def test_one_run_of_each(new, sigma, expected):
    assert verdict([new], [100.0], sigma).verdict == expected


def test_less_is_better_for_memory():
    assert verdict([1100.0], [1000.0], sigma=0.0, quantity=MEMORY).verdict == "regression"
    assert verdict([900.0], [1000.0], sigma=0.0, quantity=MEMORY).verdict == "better"


def test_the_interval_is_around_the_change():
    row = verdict([90.0], [100.0])
    assert row.change == pytest.approx(-0.1)
    assert row.change_low < row.change < row.change_high


def test_several_runs_tell_what_one_does_not():
    assert verdict([95.0], [100.0], sigma=0.03).verdict == "unclear"
    assert verdict([95.0] * 6, [100.0] * 6, sigma=0.03).verdict == "regression"


def test_runs_that_differ_count_beyond_their_own_noise():
    steady = verdict([100.0] * 5, [100.0] * 5, sigma=0.005)
    shaken = verdict([90.0, 110.0, 95.0, 105.0, 100.0], [100.0] * 5, sigma=0.005)
    assert shaken.change_high > 3 * steady.change_high
    assert (steady.verdict, shaken.verdict) == ("ok", "unclear")


@pytest.mark.parametrize(("new", "expected"), [(97.01, "ok"), (96.99, "regression"), (102.99, "ok"), (103.01, "ok")])
def test_what_is_allowed_is_a_share_of_the_baseline(new, expected):
    found = verdict([new], [100.0], sigma=0.0)
    assert found.verdict == ("better" if new > 100 else expected)
    less = verdict([new], [100.0], sigma=0.0, quantity=MEMORY)
    assert less.verdict == ("regression" if new > 103 else "ok" if new > 100 else "better")


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.08])
def test_false_alarms_are_rare_whatever_the_noise(sigma):
    draw = random.Random(0)
    rows = [
        verdict([100 * draw.lognormvariate(0, sigma)], [100 * draw.lognormvariate(0, sigma)], sigma)
        for _ in range(2000)
    ]
    assert sum(row.verdict == "regression" for row in rows) <= 30  # 20 are expected at most


def test_a_true_regression_is_found_where_the_noise_allows():
    draw = random.Random(1)
    rows = [
        verdict([95 * draw.lognormvariate(0, 0.006)], [100 * draw.lognormvariate(0, 0.006)], 0.008) for _ in range(400)
    ]
    assert sum(row.verdict == "regression" for row in rows) >= 0.97 * 400


def test_the_same_report_is_no_regression():
    found = check([report_of()], [report_of()], 0.03)
    assert (found.verdict, found.differences) == ("ok", ())
    assert {row.name for row in found.comparisons if row.is_judged} == {"throughput", "peak memory of the fullest rank"}


def test_slower_steps_are_a_regression():
    found = check([report_of(steps=(0.55,) * 4)], [report_of()], 0.03)
    assert found.verdict == "regression"
    assert found.comparisons[0].change == pytest.approx(1 / 1.1 - 1, abs=0.001)


def test_more_memory_is_a_regression():
    found = check([report_of(peak=1.05)], [report_of()], 0.03)
    assert [row.name for row in found.comparisons if row.verdict == "regression" and row.is_judged] == [
        "peak memory of the fullest rank"
    ]


def test_an_uneven_machine_is_not_believed():
    found = check([report_of(steps=(0.55,) * 4, drift=0.06)], [report_of(drift=0.06)], 0.03)
    assert found.verdict == "unclear"


def test_a_machine_that_changed_its_speed_while_it_searched_is_not_believed():
    """The same code: in one run the search found the machine at two speeds, in the other steps took as long throughout
    as they took in the slower half of the first."""
    drift = Drift(checks=2, ratio=1.4, profile_ratio=1.0)
    drifting = with_drift(report_of(), drift)
    assert check([report_of(steps=(0.7, 0.7, 0.71))], [drifting], 0.03).verdict == "unclear"
    assert check([report_of(steps=(0.7, 0.7, 0.71))], [report_of()], 0.03).verdict == "regression"


@pytest.mark.parametrize("factor", [1.3, 0.8])
def test_drift_between_two_runs_of_a_machine_that_drifts_counts_as_noise(factor):
    """Every stage and every step took ``factor`` times as long: on a machine that is seen to drift that is drift."""
    steps = tuple(0.5 * factor * wobble for wobble in (1.0, 1.01, 0.99))
    for drift, verdicts in ((0.03, {"unclear"}), (0.002, {"regression", "better"})):
        other = with_profile(report_of(steps=steps, drift=drift), factor)
        assert check([other], [report_of(drift=drift)], 0.03).verdict in verdicts


def test_the_interval_of_an_estimate_is_its_noise():
    row = report_of().candidates[report_of().sweet_spot.candidate]
    wide = Estimate(step_time_s=0.5, step_time_low_s=0.5 / 1.2, step_time_high_s=0.5 * 1.2, throughput_seq_s=128.0)
    found = row.model_copy(update={"estimate": wide})
    assert estimate_sigma(found) == pytest.approx(log(1.2) / 1.645)
    assert throughput(with_row(report_of(), found), report_of()).sigma > 0.1


def test_another_machine_is_judged_by_ratios_alone():
    elsewhere = report_of(steps=(1.0,) * 4, naive=(3.0,), environment=HERE | {"devices": ["H100"] * 4})
    found = check([elsewhere], [report_of()], 0.03)
    assert "devices was" in found.differences[0]
    judged = {row.name: row.verdict for row in found.comparisons if row.is_judged}
    assert "throughput" not in judged
    assert judged["speed-up over m = 1"] == "ok"  # twice as slow at both
    assert judged["pipeline efficiency"] == "regression"  # the profile is the same, the step took twice as long


def test_a_host_of_the_same_kind_is_no_other_machine():
    found = check([report_of(environment=HERE | {"hostname": "b", "python_version": "3.11.9"})], [report_of()], 0.03)
    assert found.differences == ()


def test_another_training_job_is_refused():
    with pytest.raises(InputError, match=r"another training job.*hidden was 64, is 128"):
        check([report_of(hidden=128)], [report_of()], 0.03)


def test_a_report_without_a_sweet_spot_is_refused():
    with pytest.raises(InputError, match="the baseline is partial and names no sweet spot"):
        check([report_of()], [report_of().model_copy(update={"sweet_spot": None, "status": "partial"})], 0.03)


def test_runs_of_one_side_must_be_of_one_machine():
    other = report_of(environment=HERE | {"torch_version": "2.14.0"})
    with pytest.raises(InputError, match=r"every new report must be of one machine.*torch was 2.13.0, is 2.14.0"):
        check([report_of(), other], [report_of()], 0.03)


@pytest.mark.parametrize(("text", "share"), [("3%", 0.03), ("0.05", 0.05), ("2.5 %", 0.025)])
def test_the_allowed_regression_is_a_share(text, share):
    assert parse_regression(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "3 apples", "0%", "100%", "-1%"])
def test_another_allowed_regression_is_refused(text):
    with pytest.raises(UsageError, match="--max-regression"):
        parse_regression(text)
