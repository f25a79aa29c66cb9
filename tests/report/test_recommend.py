"""The sweet spot as it follows from rows and a verdict: the rule that decided, ties, knee, front, limit, speed-up."""

import pytest

from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.report import candidate_report
from autotune.records.verdict import Estimate, Stop, StopReason, Verdict
from autotune.report.recommend import (
    baseline,
    is_undecided,
    knee,
    loses_to,
    pareto_front,
    reason,
    recommend,
    stop_text,
    ties,
    under_limit,
)
from tests.report.searched import report_of
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS, Machine, search

LIMIT = 2**40
MIB = 2**20


def rows_of(rates, peaks=None, sigma=0.01):
    """A row for each m that ``rates`` names, in sequences per second; those without a peak need 100 MiB."""
    rows = []
    for candidate, prediction in zip(CANDIDATES, PREDICTIONS, strict=True):
        rate = rates.get(candidate.micro_batches)
        if rate is None:
            rows.append(candidate_report(candidate, prediction, None, None))
            continue
        step = candidate.sequences / rate
        peak = (peaks or {}).get(candidate.micro_batches, 100) * MIB
        outcome = Measurement.of((1.3 * step, 1.3 * step), candidate.sequences, 1, peak_memory_bytes=(peak,) * 4)
        known = Estimate(
            step_time_s=step,
            step_time_low_s=step * (1 - sigma),
            step_time_high_s=step * (1 + sigma),
            throughput_seq_s=rate,
        )
        rows.append(candidate_report(candidate, prediction, outcome, None).model_copy(update={"estimate": known}))
    return rows


def at(m):
    return next(index for index, candidate in enumerate(CANDIDATES) if candidate.micro_batches == m)


def verdict_of(pick, **more):
    return Verdict(**({"pick": at(pick), "tolerance": 0.01, "stop": Stop(reason=StopReason.DECIDED)} | more))


def reason_of(rates, pick, peaks=None, objective="throughput", tolerance=0.01, sigma=0.01):
    return reason(rows_of(rates, peaks, sigma), at(pick), objective, tolerance)


def test_figures_are_estimates_and_never_raw_steps():
    spot = recommend(rows_of({1: 50.0, 4: 100.0, 8: 80.0}), verdict_of(4), LIMIT)
    assert (spot.throughput_seq_s, spot.speedup_over_naive) == (100.0, 2.0)
    assert spot.reason == "it has the highest throughput, 25.0% above the next"
    assert spot.memory_headroom_bytes == (LIMIT - 100 * MIB,) * 4
    assert (spot.candidate, spot.baseline) == (at(4), at(1))


def test_headroom_is_that_of_measured_memory_alone():
    rows = rows_of({1: 50.0, 4: 100.0})
    unknown = rows[at(4)].measurement.model_copy(update={"peak_memory_bytes": None})
    rows[at(4)] = rows[at(4)].model_copy(update={"measurement": unknown})
    assert recommend(rows, verdict_of(4), LIMIT).memory_headroom_bytes is None


def test_a_tie_names_who_is_tied_and_what_the_choice_saves():
    rates = {1: 50.0, 4: 100.0, 8: 100.5, 16: 99.6}
    lean = {4: 100, 8: 60, 16: 80}
    assert (
        reason_of(rates, 8, lean)
        == "it is tied with m = 4 1F1B, m = 16 1F1B within 1% and needs 20.0 MiB less memory than the next"
    )
    assert reason_of(rates, 8) == "it is tied with m = 4 1F1B, m = 16 1F1B within 1% and none needs less memory"
    assert reason_of(rates, 4, lean) == "it is tied with m = 8 1F1B, m = 16 1F1B within 1%"
    assert ties(rows_of(rates, lean), at(8), 0.01) == (
        "m = 8 and m = 4 are within 1%; 8 needs 40.0 MiB less.",
        "m = 8 and m = 16 are within 1%; 8 needs 20.0 MiB less.",
    )


def test_a_slower_pick_is_never_called_the_fastest():
    rates = {4: 100.0, 8: 98.0}
    same = reason_of(rates, 8)
    assert same == "the search picked it, although by the figures in this table m = 4 1F1B is 2.0% faster"
    lean = reason_of(rates, 8, {8: 60}, sigma=0.02)
    assert lean.startswith("it needs 40.0 MiB less memory than m = 4 1F1B, which is estimated to be 2.0% faster")
    assert reason_of(rates, 8, {8: 60}, sigma=0.001) == same  # the steps do tell them apart


def test_the_memory_objective_says_what_the_saving_costs():
    rates, peaks = {4: 100.0, 8: 98.0, 16: 90.0}, {4: 100, 8: 60, 16: 40}
    said = reason_of(rates, 8, peaks, "memory", 0.05)
    assert said == "it needs the least memory of those within 5% of the best, and is only 2.0% slower than m = 4 1F1B"
    assert reason_of(rates, 4, {4: 10}, "memory", 0.05).endswith("and is the fastest as well")
    assert reason_of(rates, 4, peaks, "memory", 0.05).startswith("the search picked it of those within 5%")


def test_the_speed_up_is_against_the_smallest_m_that_fits_and_ran():
    rows = rows_of({2: 50.0, 4: 100.0})
    assert recommend(rows, verdict_of(4), None).speedup_over_naive == 2.0
    assert baseline(rows) == at(2)
    over = [under_limit(row, 90 * MIB) for row in rows_of({1: 40.0, 2: 50.0, 4: 100.0}, {2: 80, 4: 80})]
    assert over[at(1)].over_limit_bytes == 10 * MIB
    assert baseline(over) == at(2)
    alone = recommend(rows_of({4: 100.0}), verdict_of(4), None)
    assert (alone.speedup_over_naive, alone.baseline) == (None, at(4))
    assert recommend(rows_of({1: 100.0}), verdict_of(1), None).speedup_over_naive == 1.0


def test_a_candidate_over_the_limit_in_force_is_out_of_everything():
    rates, peaks = {1: 90.0, 4: 100.0, 8: 80.0, 16: 70.0}, {1: 200, 4: 300, 8: 60, 16: 40}
    rows = [under_limit(row, 100 * MIB) for row in rows_of(rates, peaks)]
    assert [rows[at(m)].may_win for m in (1, 4, 8, 16)] == [False, False, True, True]
    assert reason(rows, at(8), "throughput", 0.01) == "it has the highest throughput, 14.3% above the next"
    assert not {at(1), at(4)} & {point.candidate for point in pareto_front(rows)}
    assert [under_limit(row, None).over_limit_bytes for row in rows] == [None] * len(rows)


def test_the_only_candidate_says_so():
    assert reason_of({4: 100.0}, 4) == "it is the only candidate that was measured"
    rows = [under_limit(row, 90 * MIB) for row in rows_of({4: 100.0, 8: 80.0}, {4: 100, 8: 80})]
    assert (
        reason(rows, at(8), "throughput", 0.01)
        == "it is the only candidate that was measured and fits in the memory limit"
    )


def test_a_pick_that_is_less_sure_than_80_percent_is_undecided():
    rows = rows_of({4: 100.0, 8: 99.0})
    rivals = {"undecided_with": (at(8),)}
    assert recommend(rows, verdict_of(4, certainty=0.79, **rivals), None).undecided_with == (at(8),)
    assert recommend(rows, verdict_of(4, certainty=0.8, **rivals), None).undecided_with == ()
    assert is_undecided(verdict_of(4, **rivals)) and not is_undecided(verdict_of(4))


def test_the_knee_is_the_smallest_m_within_one_percent_of_its_curve():
    found = knee(rows_of({1: 50.0, 2: 80.0, 4: 99.2, 8: 100.0, 16: 90.0}), at(8))
    assert [one.micro_batches for one in (found.fewer, found.at, found.more)] == [2, 4, 8]
    assert [one.loss for one in (found.fewer, found.at, found.more)] == pytest.approx([0.2, 0.008, 0.0])
    assert found.at.source == "measured"


def test_what_failed_or_is_excluded_is_neither_on_the_knee_nor_on_the_front():
    rows = rows_of({4: 100.0, 8: 98.0, 16: 90.0}, {8: 50, 16: 20})
    failure = Failure(kind="crash", message="gone")
    rows[at(8)] = rows[at(8)].model_copy(update={"failure": failure, "measurement": None})
    rows[at(16)] = rows[at(16)].model_copy(update={"excluded": "batch statistics need 8 samples"})
    assert not {at(8), at(16)} & {point.candidate for point in pareto_front(rows)}
    assert knee(rows, at(4)).more.micro_batches > 16


def test_the_front_trades_throughput_for_memory(tmp_path):
    report = report_of(search(tmp_path, Machine(), exhaustive=True))
    points = report.search.pareto_front
    assert [p.peak_memory_bytes for p in points] == sorted(p.peak_memory_bytes for p in points)
    assert [p.throughput_seq_s for p in points] == sorted(p.throughput_seq_s for p in points)
    assert points[-1].candidate == report.sweet_spot.candidate
    assert CANDIDATES[points[0].candidate].micro_batches == 64


def test_what_a_faster_candidate_loses_to_is_not_said():
    rows = rows_of({1: 50.0, 4: 100.0, 64: 60.0})
    assert loses_to(rows[at(1)], rows[at(4)]) == "bubble"
    assert loses_to(rows[at(64)], rows[at(4)]) == "granularity"
    assert loses_to(rows[at(4)], rows[at(1)]) is None
    assert loses_to(rows[at(2)], rows[at(4)]) is None  # it did not run


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (Stop(reason=StopReason.BUDGET, limit=12.5), "the budget of 12.5 s"),
        (Stop(reason=StopReason.TRIALS, limit=1), "the limit of 1 trial"),
        (Stop(reason=StopReason.DEVICES, message="rank 1 was lost"), "rank 1 was lost"),
    ],
)
def test_why_the_search_ended_is_said_in_words(stop, text):
    assert stop_text(stop) == text


def test_every_reason_to_stop_has_its_words():
    assert all(stop_text(Stop(reason=reason, limit=1)) for reason in StopReason)


def test_a_search_that_measures_all_recommends_the_best(tmp_path):
    machine = Machine(factor=lambda m: 1.0 if m == BEST else 2.0)
    spot = report_of(search(tmp_path, machine, exhaustive=True), LIMIT).sweet_spot
    assert spot.micro_batches == BEST
    assert spot.reason.startswith("it has the highest throughput, ")
    assert spot.ties == ()


def test_equal_candidates_are_ties_and_the_leanest_is_taken(tmp_path):
    def all_equal(m):
        return 10.0 / PREDICTIONS[at(m)].step_time_s

    spot = report_of(search(tmp_path, Machine(factor=all_equal), exhaustive=True)).sweet_spot
    assert spot.micro_batches == 64
    assert "within 1% and needs" in spot.reason
    assert "m = 64 and m = 32 are within 1%; 64 needs 4.0 MiB less." in spot.ties
