"""What a recorded profile becomes before it is replayed: waits for the stages, a device's name that tells of it."""

import pytest

from autotune.backend.replay import as_waited, replay_stages, replay_workload, replayed_device
from autotune.predict.predict import stage_costs
from autotune.predict.schedules import build_schedule
from autotune.records.job.environment import Environment
from autotune.records.profile import Profile


def profile(*rows, virtual_stages=1, **more):
    """One stage for each list of time rows."""
    stages = [{"time_s": [{"micro_batch_size": 1} | row]} | more for row in rows]
    return Profile.model_validate({"stages": stages, "virtual_stages": virtual_stages})


FUSED, HALVES = {"t_f": 0.01, "t_bw": 0.03}, {"t_f": 0.01, "t_b": 0.02, "t_w": 0.015}


@pytest.mark.parametrize(
    ("device", "devices", "name"),
    [
        ("cuda", ("NVIDIA A100", "NVIDIA A100"), "replay of cuda (NVIDIA A100)"),
        ("cuda", ("NVIDIA H100", "NVIDIA A100"), "replay of cuda (NVIDIA A100, NVIDIA H100)"),
        ("cpu", (), "replay of cpu"),
        (None, (), "replay of a hand-written profile"),
    ],
)
def test_the_device_is_named_as_a_replay(device, devices, name):
    assert replayed_device(Environment(device=device, devices=devices)) == name


def test_a_stage_waits_as_long_as_it_took():
    made = profile(FUSED, HALVES, FUSED | HALVES, optimizer_s=0.5)
    replay = replay_stages(made, 1)
    assert [(w.t_f, w.t_b, w.t_w, w.optimizer_s) for w in replay] == [
        (0.01, 0.015, 0.015, 0.5),
        (0.01, 0.02, 0.015, 0.5),
        (0.01, 0.02, 0.015, 0.5),
    ]


def test_a_stage_waits_longer_for_larger_micro_batches():
    assert [wait.t_f for wait in replay_stages(profile(FUSED), 3)] == [pytest.approx(0.03)]


def test_messages_have_the_recorded_size():
    rows = [{"micro_batch_size": 1, "bytes": 100}, {"micro_batch_size": 4, "bytes": 400}]
    made = Profile.model_validate(profile(FUSED, FUSED).model_dump() | {"message_bytes": rows})
    assert [wait.message_bytes for wait in replay_stages(made, 2)] == [200, 200]


@pytest.mark.parametrize("name", ["Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble"])
@pytest.mark.parametrize("row", [FUSED, HALVES, FUSED | HALVES], ids=["fused", "halves", "both"])
def test_what_is_predicted_of_a_replay_is_what_its_stages_wait(name, row):
    """A waiting stage's fused backward is the sum of its halves; the first stage leaves all of it to the weights."""
    made = profile(*[row] * 4, virtual_stages=2)
    made = made.model_copy(update={"stages": tuple(map(as_waited, made.stages))})
    costs = stage_costs(made, 1, build_schedule(name, 2, 4, 2))
    for stage, wait in enumerate(replay_stages(made, 1)):
        assert costs.forward[stage] == wait.t_f
        assert costs.backward[stage] == pytest.approx(wait.t_b + wait.t_w)
        assert costs.input_gradient[stage] == (wait.t_b if stage else 0.0)
        assert costs.weight_gradient[stage] == pytest.approx(wait.t_w + (0.0 if stage else wait.t_b))


def test_the_ranks_build_next_to_nothing():
    work = replay_workload(profile(*[FUSED] * 6, virtual_stages=2), 64)
    assert (work.stages, work.layers, work.batch) == (3, 6, 64)  # a layer for every stage of every rank
    assert work.hidden * work.vocab < 10


def test_a_stage_that_waits_starts_no_kernels():
    """What the recorded machine's CPU took to start them is no cost here."""
    (stage,) = profile(FUSED | {"host_s": 0.5}).stages
    assert as_waited(stage).time_s[0].host_s is None
