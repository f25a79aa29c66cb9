"""The sweet spot in words: which rule decided, the ties, the knee, the Pareto front, the drift."""

import pytest

from autotune.report.verdict import drift, knee, pareto_points, sweet_spot
from autotune.search.prospects import Goal
from tests.search.machine import BEST, CANDIDATES, PREDICTIONS, Machine, search

LIMIT = 2**40


def spot_of(found):
    return sweet_spot(found, found.pick(), LIMIT)


def all_equal(m):
    """The factor that makes every candidate's step take 10 s."""
    at = next(index for index, candidate in enumerate(CANDIDATES) if candidate.micro_batches == m)
    return 10.0 / PREDICTIONS[at].step_time_s


def test_a_winner_that_stands_apart(tmp_path):
    found = search(tmp_path, Machine(factor=lambda m: 1.0 if m == BEST else 2.0), exhaustive=True)
    spot = spot_of(found)
    assert spot.micro_batches == BEST
    assert spot.reason.startswith("highest measured throughput, ")
    assert spot.ties == ()
    naive = next(found.rate(index) for index in found.measured if CANDIDATES[index].micro_batches == 1)
    assert spot.speedup_over_naive == pytest.approx(found.rate(found.pick()) / naive)
    assert min(spot.memory_headroom_bytes) == LIMIT - max(found.measured[found.pick()].peak_memory_bytes)


def test_where_the_model_outweighs_noisy_steps_the_reason_says_so(tmp_path):
    found = search(tmp_path, Machine(noise=0.15, seed=5), exhaustive=True)
    spot = spot_of(found)
    fastest = max(found.measured, key=found.rate)
    assert fastest != spot.candidate
    ahead = found.rate(fastest) / found.rate(spot.candidate) - 1
    m = CANDIDATES[fastest].micro_batches
    assert spot.reason == (
        f"highest throughput by its steps and the model together: those of m = {m} 1F1B were {ahead:.1%} faster, but"
        " too few, on so noisy a machine, to outweigh the model"
    )


def test_ties_are_said_in_words_with_what_the_choice_saves(tmp_path):
    found = search(tmp_path, Machine(factor=all_equal), exhaustive=True)
    spot = spot_of(found)
    leanest = min(found.measured, key=lambda i: max(found.measured[i].peak_memory_bytes))
    assert spot.candidate == leanest
    assert "within the noise, and needs" in spot.reason
    assert spot.micro_batches == 64
    assert "m = 64 and m = 32 are within the noise; 64 needs 4.0 MiB less." in spot.ties


def test_the_only_candidate_and_the_memory_objective_say_so(tmp_path):
    only = search(tmp_path / "a", Machine(), allowed=[3])
    assert spot_of(only).reason == "it is the only candidate that was measured"
    lean = search(tmp_path / "b", Machine(), goal=Goal("memory", 0.3))
    assert spot_of(lean).reason.startswith("it needs the least memory of those within 30% of the best, and is only ")


def test_the_knee_tells_what_is_measured_and_what_predicted(tmp_path):
    found = search(tmp_path, Machine())
    at = knee(found, found.pick())
    assert at.at.source == "measured"
    assert at.at.micro_batches == BEST
    assert at.fewer.micro_batches < BEST < at.more.micro_batches
    assert at.fewer.loss > 0.01
    assert all(
        side.source == ("measured" if side.candidate in found.measured else "predicted") for side in (at.fewer, at.more)
    )


def test_the_front_trades_throughput_for_memory(tmp_path):
    found = search(tmp_path, Machine(), exhaustive=True)
    points = pareto_points(found)
    assert [p.peak_memory_bytes for p in points] == sorted(p.peak_memory_bytes for p in points)
    assert [p.throughput_seq_s for p in points] == sorted(p.throughput_seq_s for p in points)
    assert points[-1].candidate == found.pick()
    assert CANDIDATES[points[0].candidate].micro_batches == 64


def test_drift_compares_paces_and_the_profile(tmp_path):
    steady = drift(search(tmp_path / "a", Machine(factor=lambda m: 1.2), exhaustive=True))
    assert (steady.ratio, steady.profile_ratio) == (1.0, pytest.approx(1.2))
    slowing = Machine(pace=lambda step: 1.0 if step < 9 else 1.5)
    assert drift(search(tmp_path / "b", slowing, exhaustive=True)).ratio == pytest.approx(1.5, rel=0.02)
    assert drift(search(tmp_path / "c", Machine(), budget_s=1e-9)) is None
