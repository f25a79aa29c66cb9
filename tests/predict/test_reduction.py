"""The reduction of gradients among replicas on paper: what a backward hides of it, and where it stands in a step."""

import pytest

from autotune.predict.predict import predict, stage_costs
from autotune.predict.reduction import exposed_seconds
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import simulate
from autotune.records.job.environment import Environment
from autotune.records.job.workload import WorkloadFacts
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile, Reduction, SharedCores, StageProfile
from autotune.records.stage_costs import StageTime

MB = 10**6
REDUCTION = Reduction(latency_s=0.5, bandwidth_bytes_s=MB)  # a bucket of 1 MB takes 1.5 s


def profile(device, *buckets, shared=None, replicas=2, stages=2):
    stage = StageProfile(time_s=(StageTime(micro_batch_size=1, t_f=1.0, t_bw=2.0),), bucket_bytes=buckets)
    return Profile(
        environment=Environment(device=device, cores=2),
        workload=WorkloadFacts(data_parallel=replicas),
        stages=(stage,) * stages,
        reduction=REDUCTION,
        shared=shared,
    )


def candidate(m, schedule="GPipe", replicas=2):
    return Candidate(micro_batches=m, micro_batch_size=1, sequences=m, schedule=schedule, replicas=replicas)


@pytest.mark.parametrize(
    ("buckets", "backward_s", "exposed"),
    [
        ((MB,), 10.0, 1.5),  # complete at the end of the backward: nothing hides it
        ((MB, MB), 10.0, 1.5),  # the first in the midst of it
        ((MB, MB), 2.0, 2.0),  # the first from 1 s to 2.5 s, the second after it
        ((MB, MB), 0.0, 3.0),
        ((), 10.0, 0.0),
    ],
)
def test_only_what_comes_after_the_backward_prolongs_it(buckets, backward_s, exposed):
    assert exposed_seconds(REDUCTION, buckets, backward_s) == pytest.approx(exposed)


@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_the_last_backward_alone_is_prolonged_and_keeps_the_stage_before_waiting(name):
    """p = 2, m = 4: (m + p - 1)(t_f + t_b), and 1.5 s of either stage, one after the other."""
    made = profile("cuda", MB)
    schedule = build_schedule(name, 2, 4)
    timeline = simulate(schedule, stage_costs(made, 1, schedule))
    for rank in range(2):
        actions = list(zip(timeline.start(rank), timeline.end(rank), strict=True))
        assert actions[-1][1] - actions[-1][0] == pytest.approx(3.5)
        assert max(end - start for start, end in actions[:-1]) == pytest.approx(2.0)
    assert timeline.makespan == pytest.approx((4 + 2 - 1) * (1.0 + 2.0) + 2 * 1.5)


def test_a_step_says_what_the_reduction_takes_and_its_parts_add_up():
    one = predict(profile("cuda", MB), candidate(4, "1F1B"), None)
    assert one.time_split_s.reduction == pytest.approx(1.5)
    assert sum(one.time_split_s.model_dump().values()) == pytest.approx(one.step_time_s)
    alone = predict(profile("cuda", replicas=None), candidate(4, "1F1B", 1), None)
    assert alone.time_split_s.reduction == 0.0


def test_rates_are_of_all_replicas():
    one = predict(profile("cuda", MB), candidate(4), None)
    assert one.throughput_seq_s * one.step_time_s == pytest.approx(2 * 4)


def test_on_a_cpu_nothing_of_it_is_hidden():
    schedule = build_schedule("GPipe", 2, 2)
    assert stage_costs(profile("cpu", MB, MB), 1, schedule).reduction == pytest.approx([3.0, 3.0])
    assert stage_costs(profile("cuda", MB, MB), 1, schedule).reduction == pytest.approx([2.0, 2.0])


def test_replicas_on_one_host_take_turns_on_its_cores():
    """Two ranks of each of two replicas on two cores: with one rank of a pipeline active two are, with both four."""
    made = profile("cpu", shared=SharedCores.on(Environment(device="cpu", cores=2), 4))
    assert made.slowdown == pytest.approx((1.0, 2.0))
    single = profile("cpu", shared=SharedCores.on(Environment(device="cpu", cores=2), 2), replicas=None)
    assert single.slowdown == single.shared.slowdown


@pytest.mark.parametrize(("name", "in_backward"), [("ZBVZeroBubble", True), ("1F1B", False)])
def test_where_no_backward_reduces_each_rank_does_after_its_last_action(name, in_backward):
    """Split backwards, or lower precision: the schedule is as without replicas, and the last rank to end reduces."""
    v = 2 if name == "ZBVZeroBubble" else 1
    made = profile("cuda", MB, stages=2 * v).model_copy(update={"virtual_stages": v})
    made = made.model_copy(update={"reduction": REDUCTION.model_copy(update={"in_backward": in_backward})})
    alone = made.model_copy(update={"reduction": None})
    one = candidate(4, name).model_copy(update={"virtual_stages": v})
    with_it, without = predict(made, one, None), predict(alone, one, None)
    assert with_it.step_time_s == pytest.approx(without.step_time_s + 1.5 * v)
    for rank in with_it.rank_time_split_s:
        assert rank.reduction == pytest.approx(1.5 * v)
        assert sum(getattr(rank, part) for part in type(rank).model_fields) == pytest.approx(with_it.step_time_s)
