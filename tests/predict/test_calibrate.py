"""The runtime's cost per action is found again from a step that was made with it."""

import pytest

from autotune.predict.calibrate import calibrated, run_seconds
from autotune.predict.predict import predict
from autotune.records.prediction import Candidate
from autotune.records.profile import Calibration, Profile, SharedCores

LINKS = [{"from": a, "to": b, "latency_s": 1e-4} for a, b in ((0, 1), (1, 0))]


def profile(**more):
    rows = [{"micro_batch_size": b, "t_f": 0.01 * b, "t_b": 0.01 * b, "t_w": 0.01 * b} for b in (1, 2)]
    return Profile.model_validate({"stages": [{"time_s": rows, "optimizer_s": 0.05}] * 2, "links": LINKS, **more})


def step_of(made, schedule, count):
    candidate = Candidate(micro_batches=count, micro_batch_size=1, sequences=count, schedule=schedule)
    return predict(made, candidate, None).step_time_s


@pytest.mark.parametrize("shared", [None, {"resources": 1, "slowdown": [1.0, 1.9]}])
@pytest.mark.parametrize("schedule", ["1F1B", "GPipe"])
def test_the_overhead_is_found_again(schedule, shared):
    seconds = step_of(profile(shared=shared, message_overhead_s=0.0015), schedule, 8)
    run = Calibration(schedule=schedule, micro_batches=8, micro_batch_size=1, step_times_s=(seconds,) * 3)
    found = calibrated(profile(shared=shared, calibrations=[run]))
    assert found.message_overhead_s == pytest.approx(0.0015, rel=0.01)
    assert step_of(found, schedule, 8) == pytest.approx(seconds, rel=1e-3)


def test_waiting_stages_stand_for_the_real_ones():
    """A step of stages that wait 5 ms each way, whatever the profile's own stages take: 2(m + p-1) waits."""
    seconds = 2 * (8 + 1) * (0.005 + 0.001)
    run = Calibration(
        schedule="1F1B", micro_batches=8, micro_batch_size=1, wait_s=0.005, step_times_s=(seconds, seconds)
    )
    found = calibrated(profile(calibrations=[run], links=[]))
    assert found.message_overhead_s == pytest.approx(0.001, rel=0.02)
    assert found.stages == profile().stages


def test_a_run_faster_than_the_model_means_no_overhead():
    run = Calibration(schedule="1F1B", micro_batches=8, micro_batch_size=1, step_times_s=(0.001,))
    assert calibrated(profile(calibrations=[run])).message_overhead_s == 0.0


def test_without_a_calibration_run_the_profile_stays_as_it_is():
    assert calibrated(profile(message_overhead_s=0.002)) == profile(message_overhead_s=0.002)


def test_contention_and_overhead_are_told_apart():
    """Small micro-batches show the overhead, larger ones the contention."""
    world = profile(message_overhead_s=0.002, shared=SharedCores.of(1, 2, contention=1.25))
    runs = []
    for size, count in ((1, 8), (2, 4)):
        candidate = Candidate(micro_batches=count, micro_batch_size=size, sequences=count * size, schedule="1F1B")
        seconds = predict(world, candidate, None).step_time_s
        runs.append(Calibration(schedule="1F1B", micro_batches=count, micro_batch_size=size, step_times_s=(seconds,)))
    found = calibrated(profile(shared=SharedCores.of(1, 2, contention=1.0), calibrations=runs))
    assert found.message_overhead_s == pytest.approx(0.002, rel=0.02)
    assert found.shared.slowdown == pytest.approx((1.0, 2.5), rel=0.01)


@pytest.mark.parametrize("resources", [1, 2])
def test_one_recorded_run_tells_all_three(resources):
    """Time inside actions grows by contention; time between them is the runtime's, the least of it an action's."""
    world = profile(
        action_overhead_s=0.0005, message_overhead_s=0.002, shared=SharedCores.of(resources, 2, contention=1.25)
    )
    run = Calibration(schedule="1F1B", micro_batches=8, micro_batch_size=1, step_times_s=(1.0,), gap_s=(0.0005,))
    step_s, busy_s = run_seconds(world, run)
    assert step_s == pytest.approx(step_of(world, "1F1B", 8))
    assert 0.5 * busy_s < 16 * 0.03 * 1.25 * 2 / resources < 1.5 * busy_s  # 8 forwards and backwards on two ranks
    run = run.model_copy(update={"step_times_s": (step_s,), "busy_s": (busy_s,)})
    found = calibrated(profile(shared=SharedCores.of(resources, 2, contention=1.0), calibrations=[run]))
    assert found.action_overhead_s == 0.0005
    assert found.message_overhead_s == pytest.approx(0.002, rel=0.02)
    assert found.shared.contention == pytest.approx(1.25, rel=0.01)


@pytest.mark.parametrize("seconds", [(0.05, 0.9), (0.9, 0.05), (30.0, 30.0)])
def test_runs_that_make_no_sense_give_a_profile_that_does(seconds):
    """Both runs are of stages that compute next to nothing, so that they cannot tell overhead from contention."""
    rows = [{"micro_batch_size": b, "t_f": 1e-5 * b, "t_bw": 2e-5 * b} for b in (1, 2)]
    runs = [
        Calibration(schedule="1F1B", micro_batches=4, micro_batch_size=size, step_times_s=(step,))
        for size, step in zip((1, 2), seconds, strict=True)
    ]
    shared = SharedCores.of(1, 2, contention=1.0)
    found = calibrated(
        Profile.model_validate({"stages": [{"time_s": rows}] * 2, "calibrations": runs, "shared": shared})
    )
    assert 0.5 <= found.shared.contention <= 3.0
    assert 0 <= found.message_overhead_s < max(seconds)


def test_ranks_take_turns_and_slow_each_other():
    assert SharedCores.of(2, 4, contention=1.1).slowdown == pytest.approx((1.0, 1.1, 1.65, 2.2))
    assert SharedCores.of(2, 4, contention=1.1).contention == pytest.approx(1.1)
    assert SharedCores.of(4, 2, contention=1.3).slowdown == pytest.approx((1.0, 1.3))
    assert SharedCores.of(2, 1, contention=1.1).slowdown == (1.0,)
