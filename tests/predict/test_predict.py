"""Profile x Candidate -> Prediction: closed forms, memory from its parts, and what a sparse profile still gives."""

from dataclasses import replace

import pytest

from autotune.errors import InputError, UsageError
from autotune.predict.orders import WEIGHT_GRADIENT
from autotune.predict.predict import action_overheads, candidates_for, link_seconds, predict
from autotune.predict.schedules import build_schedule
from autotune.predict.sweep import sweep
from autotune.records.job.recompute import Recompute
from autotune.records.profile import Profile, profile_of


def profile(stages=4, **more):
    """Equal stages: 1 s forward and 2 s backward per sequence."""
    rows = [{"micro_batch_size": b, "t_f": 1.0 * b, "t_bw": 2.0 * b} for b in (1, 16)]
    return Profile.model_validate({"stages": [{"time_s": rows}] * stages, **more}, strict=False)


def by_m(profile, counts, batch=16, schedules=("1F1B",), limit=None):
    found = candidates_for(counts, schedules, (1,), len(profile.stages), len(profile.stages), batch)[0]
    return {c.micro_batches: predict(profile, c, limit) for c in found}


@pytest.mark.parametrize("m", [1, 2, 4, 8, 16])
def test_equal_stages_follow_the_closed_form(m):
    prediction = by_m(profile(), (m,))[m]
    assert prediction.step_time_s == pytest.approx((m + 3) * 3 * 16 / m)
    assert prediction.bubble_fraction == pytest.approx(3 / (m + 3))
    assert prediction.throughput_seq_s == pytest.approx(16 / prediction.step_time_s)


def test_where_m_is_below_the_stages_gpipe_takes_the_place_of_1f1b():
    found = candidates_for((1, 2, 4, 8), ("1F1B", "GPipe"), (1,), 4, 4, 16)[0]
    assert [(c.micro_batches, c.schedule) for c in found] == [
        (1, "GPipe"),
        (2, "GPipe"),
        (4, "1F1B"),
        (4, "GPipe"),
        (8, "1F1B"),
        (8, "GPipe"),
    ]


def test_a_count_that_does_not_divide_is_padded():
    (candidate,) = candidates_for((12,), ("1F1B",), (1,), 4, 4, 64)[0]
    assert (candidate.micro_batch_size, candidate.padding, candidate.sequences) == (6, 8, 64)


def test_a_fixed_micro_batch_size_lets_the_batch_grow():
    found = candidates_for((4, 8), ("1F1B",), (1,), 4, 4, 64, 4)[0]
    assert [(c.micro_batch_size, c.sequences, c.padding) for c in found] == [(4, 16, 0), (4, 32, 0)]


def test_a_cut_says_how_many_stages_a_rank_has():
    found, notes = candidates_for((4, 8), ("1F1B", "Interleaved1F1B"), (3,), 4, 10, 16, split=(2, 1, 1, 1, 1, 1, 2, 1))
    assert {(c.schedule, c.virtual_stages, c.split) for c in found} == {
        ("Interleaved1F1B", 2, (2, 1, 1, 1, 1, 1, 2, 1))
    }
    assert notes == ["not tried: m = 4, 8: 1F1B has 1 stage on each of 4 ranks, --split has 8 in all"]


def test_every_mode_is_tried_but_selective_where_a_schedule_splits_the_backward():
    names = ("1F1B", "InterleavedZeroBubble")
    found, (note,) = candidates_for((4, 8), names, (2,), 4, 10, 16, modes=tuple(Recompute))
    assert [(c.micro_batches, c.schedule, c.recompute and c.recompute[0]) for c in found] == [
        (m, name, mode)
        for m in (4, 8)
        for name, modes in (("1F1B", (None, "selective", "full")), ("InterleavedZeroBubble", (None, "full")))
        for mode in modes
    ]
    assert {len(c.recompute) for c in found if c.recompute} == {4, 8}  # one for each stage
    assert note.startswith("not tried: m = 4, 8: torch's selective recomputation takes one backward")


@pytest.mark.parametrize(
    ("split", "reason"),
    [((2, 3, 3, 3), "2,3,3,3 holds 11 layers, the model has 10"), ((5, 5), "2 stages cannot lie on 4 ranks equally")],
)
def test_a_cut_of_another_model_is_a_usage_error(split, reason):
    with pytest.raises(UsageError, match=f"--split: {reason}"):
        candidates_for((4,), ("1F1B",), (1,), 4, 10, 16, split=split)


def test_times_between_measured_sizes_lie_on_the_line_through_them():
    assert by_m(profile(), (4,), batch=12)[4].step_time_s == pytest.approx(7 * 3 * 3)


def test_the_runtime_costs_for_each_action_and_for_each_end_of_a_message_between_ranks():
    loop = action_overheads(profile(3, action_overhead_s=1.0, message_overhead_s=10.0), build_schedule("1F1B", 3, 4, 1))
    assert loop[:3].tolist() == [[11.0, 21.0, 11.0]] * 3  # the middle stage receives and sends
    assert loop[WEIGHT_GRADIENT].tolist() == [1.0] * 3
    folded = build_schedule("ZBVZeroBubble", 2, 4, 2)  # stages 1 and 2 lie on one rank
    assert action_overheads(profile(4, virtual_stages=2, message_overhead_s=10.0), folded)[0].tolist() == [10.0] * 4


def test_links_and_overheads_lengthen_the_step():
    free = by_m(profile(2), (4,))[4]
    links = [{"from": 0, "to": 1, "latency_s": 0.5}, {"from": 1, "to": 0, "latency_s": 0.25}]
    linked = by_m(profile(2, links=links), (4,))[4]
    assert linked.step_time_s > free.step_time_s
    assert linked.time_split_s.communication > 0 == free.time_split_s.communication
    costly = by_m(profile(2, message_overhead_s=0.1, step_overhead_s=1.0), (4,))[4]
    assert costly.step_time_s == pytest.approx(free.step_time_s + 5 * 0.2 + 1.0)


def test_the_split_adds_up_to_the_step():
    links = [{"from": 0, "to": 1, "latency_s": 0.5}, {"from": 1, "to": 0, "latency_s": 0.25}]
    shared = {"resources": 1, "slowdown": [1.0, 2.0]}
    for extra in ({}, {"links": links}, {"shared": shared}, {"message_overhead_s": 0.3, "step_overhead_s": 1.0}):
        for prediction in by_m(profile(2, **extra), (1, 2, 4, 8)).values():
            parts = prediction.time_split_s.model_dump().values()
            assert sum(parts) == pytest.approx(prediction.step_time_s, rel=1e-9)


def test_two_ranks_on_one_core_take_at_least_their_work():
    prediction = by_m(profile(2, shared={"resources": 1, "slowdown": [1.0, 2.0]}), (16,))[16]
    assert prediction.step_time_s >= 2 * 16 * 3


def memory_profile():
    memory = [{"micro_batch_size": b, "activation_bytes": 100 * b, "transient_bytes": 10 * b} for b in (1, 16)]
    stage = {
        "static_bytes": 1000,
        "time_s": [{"micro_batch_size": 1, "t_f": 1.0, "t_b": 1.0, "t_w": 1.0}],
        "memory": memory,
        "optimizer_transient_bytes": 5,
    }
    messages = [{"micro_batch_size": 1, "bytes": 7}, {"micro_batch_size": 2, "bytes": 14}]
    return Profile.model_validate({"stages": [stage] * 3, "message_bytes": messages, "workload": {"seq_len": 1}})


def test_peak_memory_is_the_sum_of_its_parts():
    """b = 2, m = 8, p = 3: static 1000, batch 2·8·16, one receive buffer per micro-batch and neighbour.

    1F1B keeps one more message for each neighbour, and the last rank 4 bytes of every loss.
    """
    prediction = by_m(memory_profile(), (8,))[8]
    base = 1000 + 2 * 8 * 16
    assert prediction.in_flight == (3, 2, 1)
    assert prediction.peak_memory_bytes == (
        base + (8 + 1) * 14 + 3 * 200 + 20,
        base + 2 * (8 + 1) * 14 + 2 * 200 + 20,
        base + (8 + 1) * 14 + 1 * 200 + 20 + 8 * 4,
    )
    assert prediction.device_memory_bytes == prediction.peak_memory_bytes


def test_the_device_gives_away_more_than_the_allocator_hands_out():
    """Fragmentation stretches what the allocator takes; what is held outside of torch comes on top."""
    spread = {"reserved_over_allocated": 1.5, "outside_bytes": 10_000}
    made = memory_profile().model_copy(update=spread)
    prediction = by_m(made, (8,))[8]
    assert prediction.peak_memory_bytes == by_m(memory_profile(), (8,))[8].peak_memory_bytes
    assert prediction.device_memory_bytes == tuple(
        split.static + round(1.5 * (split.total - split.static)) + 10_000 for split in prediction.memory_split_bytes
    )
    most = max(prediction.device_memory_bytes)
    assert by_m(made, (8,), limit=most)[8].fits is True
    assert by_m(made, (8,), limit=most - 1)[8].fits is False


def test_gpipe_keeps_every_micro_batch_in_flight():
    assert by_m(memory_profile(), (8,), schedules=("GPipe",))[8].in_flight == (8, 8, 8)


def test_fits_compares_the_fullest_rank_with_the_limit():
    peak = max(by_m(memory_profile(), (8,))[8].peak_memory_bytes)
    assert by_m(memory_profile(), (8,), limit=peak)[8].fits is True
    assert by_m(memory_profile(), (8,), limit=peak - 1)[8].fits is False


def test_without_memory_rows_no_memory_is_claimed():
    prediction = by_m(profile(), (4,), limit=1)[4]
    assert prediction.peak_memory_bytes is None
    assert prediction.fits is None


def test_a_profile_of_zeros_is_refused():
    rows = [{"micro_batch_size": 1, "t_f": 0.0, "t_bw": 0.0}]
    with pytest.raises(InputError, match="nothing to predict"):
        by_m(Profile.model_validate({"stages": [{"time_s": rows}]}), (1,))


def test_a_sweep_says_what_the_profile_left_out():
    pairs, missing = sweep(profile(2), {"batch": 8})
    assert [candidate.micro_batches for candidate, _ in pairs] == [1, 2, 4, 8]
    assert "links: messages take no time" in missing[0]
    assert "memory is not predicted" in missing[0]


def test_a_sweep_refuses_more_micro_batches_than_sequences():
    with pytest.raises(UsageError, match="m = 9 is more than the batch of 8"):
        sweep(profile(2), {"batch": 8, "micro_batches": "9"})


def test_what_had_no_room_while_profiled_does_not_fit():
    rows = [{"micro_batch_size": 1, "t_f": 0.1, "t_bw": 0.2}]
    profile = Profile.model_validate({"stages": [{"time_s": rows}] * 2, "no_room_for": 8})
    candidates = candidates_for((2, 4, 8), ("1F1B",), (1,), 2, 2, 32)[0]
    assert [predict(profile, candidate, None).fits for candidate in candidates] == [False, False, None]


def test_a_drift_is_shared_out_between_the_model_and_the_moment_of_a_measurement():
    """Of three rounds' mean a third of the variance is left open; together they are the drift that profiling saw."""
    steady, drifting = (by_m(profile(drift=drift), (8,))[8].uncertainty for drift in (0.0, 0.06))
    added = {name: getattr(drifting, name) ** 2 - getattr(steady, name) ** 2 for name in ("common", "own", "moment")}
    assert added == pytest.approx({"common": 0.06**2 / 3, "own": 0.06**2 / 3, "moment": 0.06**2 * 2 / 3})


def test_gpus_are_less_sure_until_real_ones_have_calibrated_the_model():
    """About 8 % for all candidates alike and 3 % for each by itself, however narrow the profile's own samples are."""
    own, gpu = (by_m(profile(environment={"device": device}), (8,))[8] for device in ("replay of cuda (A100)", "cuda"))
    assert (gpu.uncertainty.common, gpu.uncertainty.own, gpu.uncertainty.placement) == (0.08, 0.03, 0.03)
    assert own.uncertainty.common < 0.02
    assert gpu.step_time_s == own.step_time_s
    assert gpu.step_time_high_s / gpu.step_time_low_s > 1.3


def with_host_costs(action_s=0.0, **row):
    rows = [{"micro_batch_size": b, "t_f": 1.0 * b, "t_bw": 2.0 * b, **row} for b in (1, 16)]
    return Profile.model_validate({"stages": [{"time_s": rows}] * 4, "host_action_s": action_s}, strict=False)


def test_a_step_lasts_as_long_as_the_cpu_needs_to_start_it_where_that_is_longer():
    """(m + 3)(1 + 2) s per sequence on the devices; on the CPU of each rank m times (5 s + 2 actions of 1 s), b = 1.

    Every CPU has started its last backward then; the devices still hand it down the pipeline, 2 s on each of three.
    """
    device_bound = by_m(with_host_costs(0.25, host_s=0.5), (16,))[16]
    host_bound = by_m(with_host_costs(1.0, host_s=5.0), (16,))[16]
    assert device_bound.step_time_s == 19 * 3
    assert host_bound.step_time_s == pytest.approx(16 * (5 + 2) + 3 * 2)
    parts = host_bound.time_split_s
    assert parts.overhead == pytest.approx(host_bound.step_time_s - 19 * 3)
    assert sum(parts.model_dump().values()) == pytest.approx(host_bound.step_time_s)


def test_the_cpu_starts_the_actions_of_all_stages_of_its_rank():
    """Two stages on each of two ranks: 4 actions per micro-batch, and both stages' launches; then one more backward."""
    profile = with_host_costs(1.0, host_s=5.0).model_copy(update={"virtual_stages": 2})
    (candidate,) = candidates_for((4,), ("Interleaved1F1B",), (2,), 2, 4, 4)[0]
    assert predict(profile, candidate, None).step_time_s == pytest.approx(4 * (2 * 5 + 4) + 2)


def test_without_a_cpu_beside_the_device_nothing_is_added():
    assert by_m(with_host_costs(), (8,))[8].step_time_s == by_m(profile(), (8,))[8].step_time_s


def test_within_a_host_messages_go_beside_all_others_and_between_hosts_alone():
    """Between hosts ``Profile.link_contention`` says how they slow each other: not a second time here."""
    links = [
        {"from": a, "to": b, "latency_s": 0.5, "bandwidth_bytes_s": 100.0, "together_bytes_s": 50.0}
        for a, b in ((0, 1), (1, 2))
    ]
    hosts = {"environment": {"hosts": ["alpha", "alpha", "beta"]}}
    assert link_seconds(profile(3, links=links, **hosts), 100) == {(0, 1): 2.5, (1, 2): 1.5}
    assert link_seconds(profile(3, links=links), 100) == {(0, 1): 2.5, (1, 2): 2.5}


def test_stages_that_recompute_differently_come_from_the_profiles_of_their_modes():
    modes = (Recompute.FULL, Recompute.FULL, Recompute.NONE, Recompute.NONE)
    plain, full = profile(4), profile(4).model_copy(update={"recompute": (Recompute.FULL,) * 4})
    slower = tuple(
        stage.model_copy(update={"time_s": tuple(replace(row, t_bw=9.0) for row in stage.time_s)})
        for stage in full.stages
    )
    mixed = profile_of([plain, full.model_copy(update={"stages": slower})], 1, modes)
    assert mixed is not None
    assert mixed.stages == (*slower[:2], *plain.stages[2:])
    assert profile_of([plain], 1, modes) is None
    assert profile_of([plain], 2, None) is None
