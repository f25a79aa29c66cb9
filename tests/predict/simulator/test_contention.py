"""Devices beside a CPU that starts their actions, one after the other, and waits for no message: whichever is later."""

from dataclasses import replace

import numpy as np
import pytest

from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.posting import graph_of
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.schedule_spec import SCHEDULE_NAMES, why_illegal

P, M = 4, 8


EVERY = [build_schedule(name, P, M, 2 if why_illegal(name, P, 1, M) else 1) for name in SCHEDULE_NAMES]


def equal_stages(stages, seconds):
    return Costs(*[[seconds] * stages] * 4, *[[0.0] * (stages - 1)] * 2)


def with_host(costs, seconds):
    return replace(costs, host=[[seconds] * costs.stages] * 4)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda one: one.name)
def test_where_devices_take_no_time_a_step_is_what_a_cpu_starts(schedule):
    """Action k of a rank has been started at k c, whoever waits for whom: inputs are older than that, in any schedule
    of which all ranks have equally many actions."""
    timeline = simulate(schedule, with_host(equal_stages(schedule.stages, 0.0), 0.5))
    most = max(len(schedule.actions(rank)) for rank in range(P))
    assert timeline.makespan == pytest.approx(0.5 * most)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda one: one.name)
def test_a_cpu_that_is_never_late_changes_nothing(schedule):
    costs = equal_stages(schedule.stages, 1.0)
    expected = simulate(schedule, costs)
    timeline = simulate(schedule, with_host(costs, 0.01))
    assert timeline.ends == pytest.approx(expected.ends)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda one: one.name)
@pytest.mark.parametrize("seed", range(3))
def test_a_step_is_no_shorter_than_either_chain_and_no_longer_than_both(schedule, seed):
    rng = np.random.default_rng(seed)
    costs = Costs(*rng.random((4, schedule.stages)).tolist(), *rng.random((2, schedule.stages - 1)).tolist())
    host = rng.random((4, schedule.stages))
    graph = graph_of(schedule, "torch")
    chains = np.bincount(graph.rank, host[graph.kind, graph.stage])
    devices = simulate(schedule, costs).makespan
    step = simulate(schedule, replace(costs, host=host.tolist())).makespan
    assert max(devices, chains.max()) - 1e-9 <= step <= devices + chains.max() + 1e-9


def test_an_action_waits_half_done_for_the_rest_of_its_start():
    """One rank; forwards of 1 s are started in 3 s, backwards of 10 s in 2 s::

    CPU      F0 F0 F0 F1 F1 F1 B0 B0 B1 B1
    device   F0------ F1------ B0-------------- B1---
    """
    schedule = build_schedule("GPipe", 1, 2)
    costs = Costs([1.0], [10.0], [0.0], [0.0], [], [], host=[[3.0], [2.0], [0.0], [0.0]])
    timeline = simulate(schedule, costs)
    assert timeline.start(0).tolist() == [0.0, 3.0, 6.0, 16.0]
    assert timeline.end(0).tolist() == [3.0, 6.0, 16.0, 26.0]
