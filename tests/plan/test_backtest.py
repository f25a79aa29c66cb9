"""Plans against published runs; ``python -m tests.bench backtest`` prints them all, and fits without each paper."""

from statistics import median

import pytest

from tests.published.extrapolations import sweeps
from tests.published.planned import regret, results


def of(*papers):
    return [one for one in results() if one.case.paper in papers]


@pytest.mark.parametrize("paper", ["Narayanan", "Korthikanti", "Qi"])
def test_steps_of_megatron_on_a100(paper):
    """The constants were fitted to these: their median is 4 % off or less, the worst 7.2 %."""
    errors = [abs(one.error) for one in of(paper)]
    assert median(errors) <= 0.05
    assert max(errors) <= 0.10


def test_ninety_per_cent_intervals_hold_ninety_per_cent_of_all_published_steps():
    """BLOOM's software and fabric are others, which is what the interval is wide for."""
    found = results()
    assert len(found) == 45
    assert 0.80 <= sum(one.is_covered for one in found) / len(found) <= 0.97


def test_peak_memory_where_it_is_printed():
    """Within 5 % of all twelve, taken as GB, which the paper does not say."""
    for one in of("Qi"):
        planned = max(one.prediction.peak_memory_bytes) / 1e9
        assert planned == pytest.approx(one.case.peak_gb, rel=0.05), one.case.name


def test_peak_memory_of_bloom():
    """Within 8 % of every run, and within 5 % in 13 of 15: weights, shards of the optimizer, recomputed activations."""
    ratios = [max(one.prediction.peak_memory_bytes) / 1e9 / one.case.peak_gb for one in of("BLOOM")]
    assert max(abs(ratio - 1) for ratio in ratios) <= 0.08
    assert sum(abs(ratio - 1) <= 0.05 for ratio in ratios) >= 13


def test_two_sweeps_of_one_layout_have_no_size_that_is_good_in_both():
    """Same model, devices and layout: what a plan is given does not tell them apart, so 25 of 26 is the most."""
    one, two = (
        {run.b: run.step_s for run in sweep.runs}
        for sweep in sweeps()
        if sweep.name.startswith("llama_13B_64gpus_tp1_pp2_ckpt-every_layer")
    )
    for b in one.keys() & two.keys():
        assert max(steps[b] / min(steps.values()) for steps in (one, two)) > 1.02


def test_the_size_that_is_picked_loses_little():
    """20 of 26 sweeps by other software than the constants are of within 2 %, in the mean 1.4 %."""
    losses = [regret(sweep) for sweep in sweeps()]
    assert sum(loss <= 0.02 for loss in losses) >= 20
    assert sum(losses) / len(losses) <= 0.02
    assert max(losses) <= 0.10
