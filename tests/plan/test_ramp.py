"""Megatron's batch ramp: its phases against Megatron's own rule, the sizes that serve them, which one is best."""

import pytest

from autotune.errors import UsageError
from autotune.plan.ramp import BatchSteps, Ramp, parse_schedule, phases, plan_ramp, step_phases, whole_steps
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
        steps = [phase.steps * phase.step_time_s for phase in one.phases]
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


def megatron_steps(entries, train_samples):
    """Steps of each batch, one by one, as StepBatchsizeNumMicroBatchesCalculator and update_train_iters have it."""
    consumed, found = 0, {}
    while consumed < train_samples:
        batch = [size for threshold, size in entries if threshold <= consumed][-1]
        found[batch] = found.get(batch, 0) + 1
        consumed += batch
    return found


@pytest.mark.parametrize(
    ("text", "train_samples"),
    [("0:16 100:32 300:64", 1000), ("0:8,1K:24,1100:32", 5000), ("0:64", 100), ("0:500 600:8 1001:16", 1200)],
)
def test_steps_of_a_schedule_are_those_of_megatron(text, train_samples):
    asked = BatchSteps(parse_schedule(text, None), train_samples)
    steps = {batch: count for batch, count in whole_steps(step_phases(asked)) if count}
    assert steps == megatron_steps(asked.entries, train_samples)


def test_whole_steps_of_the_old_ramp():
    """7 steps of 16 are 112 samples, so 3 of 32 come to 208, and so on."""
    assert whole_steps(phases(RAMP)) == [(16, 7), (32, 3), (48, 2), (64, 11)]


def test_thresholds_are_tokens_where_the_sequence_length_is_given():
    assert parse_schedule("0:16 2.4B:320", 2048) == ((0, 16), (1171875, 320))
    assert parse_schedule("2.4B:320 0:16", None) == ((0, 16), (2_400_000_000, 320))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5:16", "first threshold must be 0"),
        ("", "first threshold must be 0"),
        ("0:16 x:8", "is no number"),
        ("0:16 9", "lacks its batch"),
        ("0:16 9:0", "batches be 1 or more"),
        ("0:16 9:8 9:4", "thresholds must differ"),
    ],
)
def test_what_a_schedule_must_be(text, message):
    with pytest.raises(UsageError, match=message):
        parse_schedule(text, None)


def test_a_schedule_that_replicas_cannot_share_or_that_never_ends():
    with pytest.raises(UsageError, match="must divide every batch"):
        plan_ramp(PROFILE, BatchSteps(((0, 6),), 100, 4), "1F1B", None)
    with pytest.raises(UsageError, match="end before the last phase"):
        plan_ramp(PROFILE, BatchSteps(((0, 8), (100, 16)), 100), "1F1B", None)


def test_a_size_that_was_not_timed_comes_after_those_that_were():
    one_size = Profile.model_validate({"stages": [{"time_s": ROWS[1:2]}] * 4})
    plan = plan_ramp(one_size, RAMP, "1F1B", None)
    assert [one.basis.value for one in plan.sizes] == ["measured"] + ["extrapolated"] * 4
    assert plan.sizes[0].micro_batch_size == 2
    assert plan.sizes[0].seconds_high / plan.sizes[0].seconds < 1.1
    assert max(one.seconds_high / one.seconds for one in plan.sizes[1:]) > 1.5
