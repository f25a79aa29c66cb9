"""Recorded steps on real ranks: every action of every schedule, in order, where the model says that it is."""

from importlib.metadata import version
from itertools import pairwise
from statistics import median

import pytest

from autotune.backend.replay import replay_stages, replay_workload, replayed_profile
from autotune.pipeline.control.commands import Prepare, step_seconds
from autotune.pipeline.control.measure import build, record_steps
from autotune.pipeline.control.ranks import Ranks
from autotune.pipeline.device.device import CpuDevice
from autotune.pipeline.rank.recording import Recording
from autotune.predict.calibrate import calibrated
from autotune.predict.predict import stage_costs
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import simulate
from autotune.records.job.environment import Environment
from autotune.records.job.placement import Placement
from autotune.records.prediction import Candidate
from autotune.records.profile import MessageSize, Profile, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.schedule_spec import SCHEDULES
from autotune.torch_range import RUNS_LISTS, refusal, release_of
from autotune.tuning.recorded import recorded_step
from tests.pipeline.test_ranks import WORK

P, M = 2, 6
RELEASE = release_of(version("torch"))  # make test-torch runs this under old ones
# Of the step, that the median action may begin from where it was predicted; single ones are disturbed more. Before 2.10
# ranks with several stages exchange messages in one beat, not by the runtime that the model knows.
NEAR = 0.05 if RELEASE >= RUNS_LISTS else 0.12


def profile_of(virtual_stages):
    stages = tuple(
        StageProfile(time_s=(StageTime(micro_batch_size=1, t_f=0.01 * f, t_b=0.01 * f, t_w=0.01 * f),))
        for f in (1.0, 2.0, 1.5, 0.5)[: P * virtual_stages]
    )
    return Profile(
        virtual_stages=virtual_stages, stages=stages, message_bytes=(MessageSize(micro_batch_size=1, bytes=4096),)
    )


def plan_of(name, virtual_stages, **more):
    return Prepare(
        schedule=name, micro_batches=M, micro_batch_size=1, sequences=M, virtual_stages=virtual_stages, **more
    )


@pytest.mark.alone
@pytest.mark.parametrize("virtual_stages", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_waiting_ranks_begin_each_action_where_it_was_predicted(virtual_stages):
    profile = profile_of(virtual_stages)
    workload = replay_workload(profile, batch=M)
    with Ranks(P, "cpu") as ranks:
        build(ranks, workload, Placement(virtual_stages=virtual_stages))
        profile = calibrated(replayed_profile(profile, ranks, Environment(device="replay"), (1,), print))
        for name, spec in SCHEDULES.items():
            one = Candidate(
                schedule=name, micro_batches=M, micro_batch_size=1, sequences=M, virtual_stages=virtual_stages
            )
            if spec.has_one_stage != (virtual_stages == 1) or refusal(RELEASE, one, P) is not None:
                continue
            schedule = build_schedule(name, P, M, virtual_stages)
            timeline = simulate(schedule, stage_costs(profile, 1, schedule))
            plan = plan_of(name, virtual_stages, replay=replay_stages(profile, 1))
            found = recorded_step(3, schedule, record_steps(ranks, workload, plan, timeline.makespan, 3))
            assert found.candidate == 3
            off = []
            for rank in range(P):
                starts, ends = found.starts_s[rank], found.ends_s[rank]
                assert len(starts) == len(ends) == len(schedule.actions(rank))
                assert all(end <= start for end, (_, start) in zip(ends, pairwise(starts), strict=False))
                assert max(ends) <= found.step_time_s
                off += [abs(a - b) for a, b in zip(starts, timeline.start(rank).tolist(), strict=True)]
            assert median(off) < NEAR * timeline.makespan, name


def test_computing_ranks_are_recorded_too_and_only_when_asked():
    with Ranks(WORK.stages, "cpu") as ranks:
        steps = record_steps(ranks, WORK, plan_of("1F1B", 1), 0.1, 2)
        assert [len(rank.actions) for step in steps for rank in step] == [2 * M] * 4
        one = steps[0][0]
        assert one.start_s <= one.actions[0].start_s < one.actions[0].end_s <= one.actions[1].start_s
        assert step_seconds(steps[0]) > 0


def test_what_is_no_action_of_a_schedule_is_not_recorded():
    recording = Recording(CpuDevice(1))
    recording.begin("optimizer", -1, -1)
    recording.end()
    recording.begin("weight_gradient", 1, 2)
    recording.end()
    (found,) = recording.read()
    assert (found.name, found.stage, found.micro_batch) == ("weight_gradient", 1, 2)
    assert 0 <= found.end_s - found.start_s < 1
