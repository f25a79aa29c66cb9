"""What a search concludes, as records: its estimates, its verdict, how steady the machine was."""

import pytest

from autotune.records.verdict import StopReason
from autotune.search.goal import Goal
from autotune.tuning.conclude import drift, estimates, verdict
from tests.search.machine import Machine, search


def test_drift_compares_paces_and_the_profile(tmp_path):
    steady = drift(search(tmp_path / "a", Machine(factor=lambda m: 1.2), exhaustive=True))
    assert (steady.ratio, steady.profile_ratio) == (pytest.approx(1.0, abs=0.01), pytest.approx(1.2, rel=0.01))
    slowing = Machine(pace=lambda step: 1.0 if step < 9 else 1.5)
    assert drift(search(tmp_path / "b", slowing, exhaustive=True)).ratio == pytest.approx(1.5, rel=0.1)
    assert drift(search(tmp_path / "c", Machine(), budget_s=1e-9)) is None


def test_every_candidate_has_an_estimate_and_the_pick_is_the_best_of_them(tmp_path):
    found = search(tmp_path, Machine(noise=0.15, seed=5), exhaustive=True)
    known, pick = estimates(found), found.pick()
    assert set(known) == set(found.state.predictions)
    best = max(known[candidate].throughput_seq_s for candidate in found.state.measured)
    assert known[pick].throughput_seq_s > 0.98 * best
    assert all(one.step_time_low_s < one.step_time_s < one.step_time_high_s for one in known.values())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"trials": 1}, StopReason.TRIALS),
        ({"budget_s": 1e-9}, StopReason.BUDGET),
        ({"exhaustive": True}, StopReason.ALL_MEASURED),
        ({}, StopReason.DECIDED),
    ],
)
def test_what_ended_the_search(tmp_path, options, reason):
    assert verdict(search(tmp_path, Machine(), **options)).stop.reason == reason


def test_an_unsure_pick_has_rivals(tmp_path):
    found = verdict(search(tmp_path, Machine(noise=0.3, seed=2), trials=1, goal=Goal(), unsure=0.12))
    assert found.certainty < 0.8
    assert found.pick not in found.undecided_with and found.undecided_with
