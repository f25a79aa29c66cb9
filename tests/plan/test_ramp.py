"""Megatron's batch ramp: its phases against Megatron's own rule, the sizes that serve them, which one is best."""

import pytest

from autotune.errors import UsageError
from autotune.plan.ramp import Ramp, phases, plan_ramp
from autotune.records.profile import Profile

ROWS = [{"micro_batch_size": b, "t_f": 0.004 + 0.001 * b, "t_bw": 0.008 + 0.002 * b} for b in (1, 2, 4, 8, 16)]
MEMORY = [{"micro_batch_size": b, "activation_bytes": b * 2**20} for b in (1, 16)]
PROFILE = Profile.model_validate({"stages": [{"time_s": ROWS, "memory": MEMORY}] * 4})
RAMP = Ramp(start=16, increment=16, samples=300, global_batch=64, train_samples=1000)


def megatron_batch(ramp, consumed):
    """The global batch after so many samples, as RampupBatchsizeNumMicroBatchesCalculator has it."""
    if consumed > ramp.samples:
        return ramp.global_batch
    per_increment = ramp.samples / ((ramp.global_batch - ramp.start) // ramp.increment)
    return ramp.start + int(consumed / per_increment) * ramp.increment


def test_phases():
    assert phases(RAMP) == [(16, 100), (32, 100), (48, 100), (64, 700)]


@pytest.mark.parametrize(
    "ramp", [RAMP, Ramp(8, 4, 1000, 40, 5000), Ramp(64, 1, 1, 64, 100), Ramp(32, 32, 777, 320, 778)]
)
def test_phases_are_those_of_megatron(ramp):
    begin = 0.0
    for batch, samples in phases(ramp):
        assert megatron_batch(ramp, begin + samples / 2) == batch
        begin += samples
    assert begin == pytest.approx(ramp.train_samples)


def test_every_size_divides_every_batch():
    plan = plan_ramp(PROFILE, RAMP, "1F1B", None)
    assert sorted(one.micro_batch_size for one in plan.sizes) == [1, 2, 4, 8, 16]
    for one in plan.sizes:
        for phase in one.phases:
            assert phase.micro_batches * one.micro_batch_size == phase.global_batch


def test_the_time_is_that_of_all_steps_and_the_best_comes_first():
    plan = plan_ramp(PROFILE, RAMP, "1F1B", None)
    for one in plan.sizes:
        steps = [phase.samples / phase.global_batch * phase.step_time_s for phase in one.phases]
        assert one.seconds == pytest.approx(sum(steps))
    assert [one.seconds for one in plan.sizes] == sorted(one.seconds for one in plan.sizes)


def test_equal_stages_give_the_closed_form():
    """(m + p - 1)(t_f + t_bw) with p = 4; GPipe stands in for 1F1B where m < 4, and takes as long."""
    for one in plan_ramp(PROFILE, RAMP, "1F1B", None).sizes:
        for phase in one.phases:
            each = 3 * (0.004 + 0.001 * one.micro_batch_size)
            assert phase.step_time_s == pytest.approx((phase.micro_batches + 3) * each)


def test_replicas_share_each_batch():
    plan = plan_ramp(PROFILE, Ramp(16, 16, 300, 64, 1000, data_parallel=4), "1F1B", None)
    assert sorted(one.micro_batch_size for one in plan.sizes) == [1, 2, 4]
    first = next(one for one in plan.sizes if one.micro_batch_size == 1)
    assert [phase.micro_batches for phase in first.phases] == [4, 8, 12, 16]


def test_what_does_not_fit_comes_last():
    limit = 30 * 2**20  # four micro-batches of 4 under 1F1B are 16 MiB, of 8 32 MiB
    plan = plan_ramp(PROFILE, RAMP, "1F1B", limit)
    assert {one.micro_batch_size: one.fits for one in plan.sizes} == {1: True, 2: True, 4: True, 8: False, 16: False}
    assert [one.fits for one in plan.sizes] == [True, True, True, False, False]


def test_what_the_schedule_refuses_is_left_out_with_the_reason():
    stages = Profile.model_validate({"stages": [{"time_s": ROWS}] * 8, "virtual_stages": 2})
    plan = plan_ramp(stages, Ramp(24, 8, 300, 64, 1000), "ZBVZeroBubble", None)
    assert all(phase.schedule == "ZBVZeroBubble" for one in plan.sizes for phase in one.phases)
    interleaved = plan_ramp(stages, Ramp(10, 10, 300, 40, 1000), "Interleaved1F1B", None)
    assert any("micro-batches of 1" in text for text in interleaved.left_out)


def test_a_ramp_is_refused_once_and_not_for_each_size():
    with pytest.raises(UsageError) as refused:
        plan_ramp(PROFILE, RAMP._replace(data_parallel=32), "1F1B", None)
    assert str(refused.value).startswith("--data-parallel: 32 replicas must divide")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"increment": 7}, "never comes to the global batch of 64"),
        ({"start": 128}, "never comes to the global batch of 64"),
        ({"train_samples": 200}, "end before the ramp"),
        ({"data_parallel": 3}, "3 replicas must divide"),
        ({"global_batch": 16 * 10**6, "train_samples": 10**9}, "phases are too many"),
    ],
)
def test_what_megatron_would_refuse(changes, message):
    with pytest.raises(UsageError, match=message):
        plan_ramp(PROFILE, RAMP._replace(**changes), "1F1B", None)
