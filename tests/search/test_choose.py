"""The rules of choice, on plain numbers."""

from autotune.pipeline.outcome import Measurement
from autotune.predict.predict import candidates_for, predict
from autotune.profile.record import Profile
from autotune.search.choose import finalists, pick, reason, why_not


def measured(*times, peak=100):
    return Measurement.of(times, sequences=10, seq_len=1, peak_memory_bytes=(peak,))


def test_the_fastest_wins_when_it_stands_apart():
    found = {0: measured(2.0, 2.0, 2.0), 1: measured(1.0, 1.0, 1.0, peak=900)}
    assert finalists(found) == [1]
    assert pick(found) == 1


def test_a_tie_goes_to_the_lower_peak_memory():
    found = {0: measured(1.0, 1.0), 1: measured(1.005, 1.005, peak=50), 2: measured(1.5, 1.5, peak=1)}
    assert finalists(found) == [0, 1]
    assert pick(found) == 1


def test_noise_makes_a_tie_wider_than_one_percent():
    noisy = {0: measured(1.0, 1.1, 0.9, 1.05), 1: measured(1.04, 1.14, 0.94, 1.09, peak=50)}
    assert pick(noisy) == 1
    quiet = {0: measured(1.0, 1.0, 1.0), 1: measured(1.04, 1.04, 1.04, peak=50)}
    assert pick(quiet) == 0


def test_no_noise_ties_medians_far_apart():
    wild = {0: measured(1.0, 1.5, 0.7, 1.1, peak=50), 1: measured(0.9, 1.4, 0.6, 1.0)}
    assert pick(wild) == 1


def test_the_reason_names_the_rule_that_decided():
    candidates = candidates_for((1, 2, 4), ("GPipe",), stages=1, batch=4)
    apart = {0: measured(2.0, 2.0), 1: measured(1.0, 1.0)}
    assert reason(1, apart, candidates) == "highest measured throughput, 100.0% above the next"
    tied = {1: measured(1.0, 1.0, peak=5 * 2**20), 2: measured(1.0, 1.0, peak=2**20)}
    assert (
        reason(2, tied, candidates) == "tied with m = 2 within the noise, and needs 4.0 MiB less memory than the next"
    )
    assert reason(0, {0: measured(1.0)}, candidates) == "it is the only candidate that was measured"


def test_small_m_loses_to_the_bubble_and_large_m_to_granularity():
    rows = [{"micro_batch_size": b, "t_f": 0.5 + b, "t_bw": 1.0 + 2 * b} for b in (1, 2, 4, 8, 16)]
    profile = Profile.model_validate({"stages": [{"time_s": rows}] * 4})
    candidates = candidates_for((1, 4, 16), ("GPipe",), stages=4, batch=16)
    predictions = [predict(profile, candidate, None) for candidate in candidates]
    assert why_not(0, 1, predictions, candidates) == "bubble"
    assert why_not(2, 1, predictions, candidates) == "granularity"
