"""Faults planted into what real ranks train: each is caught, and nothing is said of the right model."""

import pytest

from autotune.pipeline.control.commands import Prepare
from autotune.pipeline.control.measure import measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.predict import candidates_for, predict
from autotune.records.report import candidate_report
from autotune.report.correctness import GROWTH_BYTES, TOLERANCE, checked
from tests.pipeline.faults import wrong_rank
from tests.pipeline.test_peak_memory import BATCH, measured_profile, workload

P, VOCAB, STEPS = 2, 64, 3
COUNTS = (1, 3, 4, 8)  # 3 pads


def run(model, precision="fp32", counts=COUNTS):
    """Every candidate on real ranks that train ``model``; the peaks are predicted from its own measured bytes."""
    work = workload(P, VOCAB, precision)
    candidates, _ = candidates_for(counts, ("1F1B",), (1,), P, work.layers, BATCH)
    with Ranks(P, "cpu", wrong_rank(model)) as ranks:
        profile = measured_profile(ranks, work, 1)
        rows = []
        for candidate in candidates:
            plan, prediction = Prepare(**candidate.model_dump()), predict(profile, candidate, None)
            outcome = measure_candidate(ranks, work, plan, 1.0, STEPS, lambda *_: True, work.seq_len)
            rows.append(candidate_report(candidate, prediction, outcome, None))
    return checked(rows, profile, work.precision)


def told(model, precision="fp32"):
    """The doubts of each candidate by m, and the findings."""
    rows, soundness = run(model, precision)
    return {row.micro_batches: row.doubts for row in rows}, soundness


def test_of_the_right_model_nothing_is_said():
    doubts, found = told("right")
    assert not any(doubts.values())
    assert (found.findings, found.not_compared, found.compared) == ((), None, 3)
    assert found.loss_difference < 1e-6
    assert found.gradient_difference < 1e-6
    assert found.growth_bytes < GROWTH_BYTES
    assert found.peak_slope.micro_batches == (3, 4, 8)
    assert abs(found.peak_slope.share_of_peak) < 0.002


def test_micro_batches_that_are_summed_and_not_averaged_are_caught():
    doubts, found = told("summed")
    assert doubts == {1: ()} | dict.fromkeys((3, 4, 8), ("other loss and gradients than m = 1",))
    assert found.loss_difference == pytest.approx(7, rel=0.01)
    (words,) = found.findings
    assert words.startswith("m = 8 1F1B does not compute what m = 1 GPipe computes: ")
    assert "8 times as much is what micro-batches give that are summed where their mean is meant" in words
    assert words.endswith("; likewise m = 3 1F1B, m = 4 1F1B")


@pytest.mark.parametrize("model", ["unmasked", "full weights"])
def test_padding_that_counts_is_caught(model):
    doubts, found = told(model)
    assert [count for count, words in doubts.items() if words] == [3]
    (words,) = found.findings
    assert "look whether its 2 rows of padding are masked from the loss" in words


def test_a_tensor_kept_of_every_micro_batch_is_caught():
    doubts, found = told("hoarder")
    assert set(doubts.values()) == {("leaks memory",)}
    words = next(text for text in found.findings if "leaks memory" in text)
    assert "look for what keeps outputs" in words
    logits = BATCH * workload(P, VOCAB).seq_len * VOCAB * 4
    assert logits <= found.growth_bytes < 1.2 * logits + 2**14  # the most is left by m = 3, whose padding is kept too


def test_a_tensor_kept_until_the_step_ends_is_caught_by_the_slope():
    doubts, found = told("late hoarder")
    assert not any(doubts.values())
    assert found.growth_bytes < GROWTH_BYTES
    slope, (words,) = found.peak_slope, found.findings
    assert f"under 1F1B the peak of rank {slope.rank} grows with m" in words


def test_of_the_right_model_in_bf16_nothing_is_said():
    doubts, found = told("right", "bf16")
    assert not any(doubts.values())
    assert (found.findings, found.compared) == ((), 3)
    assert 0 < max(found.loss_difference, found.gradient_difference) < 0.1 * TOLERANCE["bf16"]
    assert found.growth_bytes < GROWTH_BYTES
