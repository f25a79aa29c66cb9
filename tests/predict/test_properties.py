"""What must hold for every schedule, every size and every cost."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Costs, simulate, travel_seconds
from autotune.predict.simulator.wavefront import step_time
from autotune.schedule_spec import SCHEDULE_NAMES, nearest_legal_m, why_illegal

BRIEF = settings(max_examples=80, deadline=None)
SECONDS = st.floats(1e-6, 10) | st.sampled_from([0.0, 1.0])
RECEIVES = st.sampled_from(["torch", "early"])


@st.composite
def schedules(draw):
    """Any legal (name, p, m, v) of modest size, built."""
    name = draw(st.sampled_from(SCHEDULE_NAMES))
    virtual_stages = {"GPipe": 1, "1F1B": 1, "ZBVZeroBubble": 2, "DualPipeV": 2}.get(name) or draw(st.integers(1, 3))
    ranks = draw(st.integers(1, 5))
    micro_batches = nearest_legal_m(name, ranks, virtual_stages, draw(st.integers(1, 16)))
    return build_schedule(name, ranks, micro_batches, virtual_stages)


@st.composite
def cases(draw):
    """A schedule, and costs for its stages."""
    schedule = draw(schedules())
    stages, links = schedule.stages, schedule.stages - 1
    per_stage = [draw(st.lists(SECONDS, min_size=stages, max_size=stages)) for _ in range(4)]
    per_link = [draw(st.lists(SECONDS, min_size=links, max_size=links)) for _ in range(2)]
    return schedule, Costs(*per_stage, *per_link)


def scaled(costs, factor):
    rows = (costs.forward, costs.backward, costs.input_gradient, costs.weight_gradient)
    return Costs(*([factor * x for x in row] for row in (*rows, costs.activation_link, costs.gradient_link)))


def resized(schedule, micro_batches):
    return build_schedule(schedule.name, schedule.ranks, micro_batches, schedule.virtual_stages)


def round_size(schedule, micro_batches):
    """How many micro-batches the interleaved schedules take through all stages of a rank before the next ones."""
    if not schedule.name.startswith("Interleaved"):
        return 0
    return micro_batches // max(1, micro_batches // schedule.ranks)


@BRIEF
@given(cases(), st.integers(1, 8), RECEIVES)
def test_more_micro_batches_never_take_less_time(case, more, receives):
    schedule, costs = case
    larger = schedule.micro_batches + more
    if why_illegal(schedule.name, schedule.ranks, schedule.virtual_stages, larger):
        return
    if round_size(schedule, larger) == round_size(schedule, schedule.micro_batches):
        fewer, most = (simulate(s, costs, receives).makespan for s in (schedule, resized(schedule, larger)))
        assert most >= fewer * (1 - 1e-12)


def test_a_different_round_size_may_take_more_micro_batches_through_in_less_time():
    """Interleaved schedules take m // max(1, m // p) micro-batches per round: one round of 5, but two rounds of 3."""
    forward, weight = [2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2]
    costs = Costs(forward, [0] * 6, [0] * 6, weight, [0] * 5, [0] * 5)
    steps = [simulate(build_schedule("InterleavedZeroBubble", 3, m, 2), costs).makespan for m in (5, 6)]
    assert steps == [20, 18]


@BRIEF
@given(cases())
def test_a_step_takes_at_least_as_long_as_its_busiest_rank(case):
    timeline = simulate(*case)
    assert timeline.makespan >= timeline.busy.max() * (1 - 1e-12)
    assert 0 <= timeline.bubble_fraction + 1e-12 <= 1 + 1e-12


@BRIEF
@given(cases())
def test_a_step_takes_at_least_as_long_as_any_micro_batchs_way_there_and_back(case):
    schedule, costs = case
    graph = simulate(schedule, costs).graph
    seconds = costs.work()[graph.kind, graph.stage] + costs.travel()[graph.kind, graph.stage]
    for micro_batch in range(schedule.micro_batches):
        way = seconds[(graph.micro_batch == micro_batch) & (graph.kind != 3)].sum()  # every F, and every B or I
        assert simulate(schedule, costs).makespan >= way * (1 - 1e-12)


@BRIEF
@given(cases())
def test_early_receives_never_make_a_step_longer(case):
    schedule, costs = case
    early, torchs = (simulate(schedule, costs, receives) for receives in ("early", "torch"))
    assert early.makespan <= torchs.makespan
    assert (early.ends <= torchs.ends).all()


@BRIEF
@given(cases())
def test_free_links_leave_nothing_for_early_receives_to_gain(case):
    """But for DualPipeV, whose overlapped pairs also send late."""
    schedule, costs = case
    if schedule.name != "DualPipeV":
        early, torchs = (simulate(schedule, costs.with_free_links(), receives) for receives in ("early", "torch"))
        assert early.ends.tolist() == torchs.ends.tolist()


@BRIEF
@given(cases(), RECEIVES)
def test_the_critical_path_adds_up_to_the_step(case, receives):
    """Its actions, and the messages that come after their producer or the posting of their receive, fill the step."""
    schedule, costs = case
    timeline = simulate(schedule, costs, receives)
    path, graph = timeline.critical_path(), timeline.graph
    seconds, travel = costs.work()[graph.kind, graph.stage], travel_seconds(graph, costs)
    spent = seconds[path].sum()
    for before, after in pairwise(path):
        if timeline.starts[after] > timeline.ends[before]:
            assert before in (graph.producer[after], graph.posted[after])
            spent += travel[after]
    assert spent == pytest.approx(timeline.makespan, rel=1e-9, abs=1e-12)


@BRIEF
@given(cases(), RECEIVES)
def test_the_critical_path_has_no_gaps_on_shared_cores_either(case, receives):
    schedule, costs = case
    timeline = simulate(schedule, replace(costs, slowdown=[1.0, 1.0, 1.5, 2.0]), receives)
    path, travel = timeline.critical_path(), travel_seconds(timeline.graph, costs)
    assert timeline.starts[path[0]] == 0
    assert timeline.ends[path[-1]] == timeline.makespan
    for before, after in pairwise(path):
        assert timeline.starts[after] - timeline.ends[before] in (0, pytest.approx(travel[after]))


@BRIEF
@given(cases(), RECEIVES)
def test_messages_that_hardly_slow_each_other_arrive_as_if_alone(case, receives):
    """Every rank on a host of its own, so that all messages go through the network's own queue."""
    schedule, costs = case
    hosts = range(schedule.ranks)
    alone = simulate(schedule, costs, receives)
    contended = simulate(schedule, replace(costs, hosts=hosts, link_contention=(1.0, *[1.0 + 1e-12] * 99)), receives)
    np.testing.assert_allclose(contended.ends, alone.ends, rtol=1e-9, atol=1e-9 * alone.makespan)
    slower = simulate(schedule, replace(costs, hosts=hosts, link_contention=(1.0, *[2.0] * 99)), receives)
    assert slower.makespan >= alone.makespan * (1 - 1e-9)


@BRIEF
@given(cases(), st.sampled_from([0.5, 2.0, 1024.0]), RECEIVES)
def test_scaling_all_times_scales_the_step(case, factor, receives):
    """Powers of two, so that even rounding scales and the comparison is exact."""
    schedule, costs = case
    slow, fast = simulate(schedule, scaled(costs, factor), receives), simulate(schedule, costs, receives)
    assert slow.starts.tolist() == (factor * fast.starts).tolist()
    assert slow.makespan == factor * fast.makespan


@BRIEF
@given(cases(), RECEIVES)
def test_the_fast_way_gives_the_same_step(case, receives):
    fast, timeline = step_time(*case, receives), simulate(*case, receives)
    assert fast.makespan == timeline.makespan
    np.testing.assert_allclose(fast.busy, timeline.busy, rtol=1e-9, atol=1e-12 * timeline.makespan)


@BRIEF
@given(cases(), st.integers(2, 4))
def test_sharing_cores_never_shortens_the_step_beyond_them(case, cores):
    """p ranks on fewer cores do at most ``cores`` seconds of work a second, and each rank at most one."""
    schedule, costs = case
    slowdown = [max(1.0, active / cores) for active in range(1, schedule.ranks + 1)]
    alone, together = simulate(schedule, costs), simulate(schedule, replace(costs, slowdown=slowdown))
    assert together.makespan >= alone.busy.sum() / cores * (1 - 1e-9)
    assert together.makespan >= alone.busy.max() * (1 - 1e-9)


def bound(schedule, rank):
    """The most activations that the rank may hold, from each schedule's own description."""
    p, m, v = schedule.ranks, schedule.micro_batches, schedule.virtual_stages
    earlier_rounds = (v - 1) * (m // max(1, m // p))
    return {
        "GPipe": m,
        "1F1B": min(m, p - rank),
        "LoopedBFS": v * m,
        "Interleaved1F1B": min(v * m, earlier_rounds + 2 * (p - 1 - rank) + 1),
        "InterleavedZeroBubble": min(v * m, earlier_rounds + p),
        "ZBVZeroBubble": min(2 * m, 2 * p),
        "DualPipeV": 2 * p + 1,
    }[schedule.name]


@BRIEF
@given(schedules())
def test_in_flight_never_exceeds_the_schedules_bound(schedule):
    for rank in range(schedule.ranks):
        assert schedule.in_flight(rank) <= bound(schedule, rank)


@BRIEF
@given(schedules())
def test_in_flight_counts_from_forward_to_backward_or_weight_gradient(schedule):
    """Action by action; at the end nothing is held, and the stages of a rank together explain what it held."""
    for rank in range(schedule.ranks):
        held = most = 0
        for action in schedule.actions(rank):
            held += action.kind == "F"
            most = max(most, held)
            held -= action.kind in "BW"
        assert held == 0
        assert most == schedule.in_flight(rank)
        counts = [schedule.stage_in_flight(stage) for stage, own in enumerate(schedule.stage_ranks) if own == rank]
        assert max(counts) <= most <= sum(counts)
