"""The fast ways to a step's time against the step-by-step simulation."""

import random
from dataclasses import replace

import numpy as np
import pytest

from autotune.predict.schedules import ScheduleError, build_schedule, custom_schedule, parse_row
from autotune.predict.simulator.dedicated import VECTORISED_RANKS, run_sequential, run_vectorised
from autotune.predict.simulator.graph import flatten
from autotune.predict.simulator.posting import graph_of
from autotune.predict.simulator.simulate import Costs, simulate, travel_seconds
from autotune.predict.simulator.wavefront import one_forward_one_backward_columns, step_time
from autotune.schedule_spec import SCHEDULE_NAMES, why_illegal


def unequal_stages(stages, seed, slowdown=None):
    rng = np.random.default_rng(seed)
    return Costs(*rng.random((4, stages)).tolist(), *rng.random((2, stages - 1)).tolist(), slowdown)


RECEIVES = pytest.mark.parametrize("receives", ["torch", "early"])


def both_ways(schedule, costs, receives="torch"):
    """Starts and ends of every action, one action at a time and all ranks at a time."""
    graph = graph_of(schedule, receives)
    seconds, delay = costs.work()[graph.kind, graph.stage], travel_seconds(graph, costs)
    return run_sequential(graph, seconds, delay), run_vectorised(graph, seconds, delay)


@RECEIVES
@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_lockstep_equals_one_action_at_a_time(name, ranks, receives):
    for virtual_stages in (1, 2, 3):
        for micro_batches in (1, 2, 5, 16, 17):
            if why_illegal(name, ranks, virtual_stages, micro_batches) is None:
                schedule = build_schedule(name, ranks, micro_batches, virtual_stages)
                in_turn, in_lockstep = both_ways(schedule, unequal_stages(schedule.stages, micro_batches), receives)
                np.testing.assert_array_equal(in_turn, in_lockstep)


@RECEIVES
@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 9])
def test_wavefront_equals_the_simulation(name, ranks, receives):
    """To the last bit for the end of every rank; also with fewer micro-batches than ranks."""
    for micro_batches in (1, 2, 3, 8, 21):
        schedule, costs = build_schedule(name, ranks, micro_batches), unequal_stages(ranks, micro_batches)
        fast, timeline = (function(schedule, costs, receives) for function in (step_time, simulate))
        assert fast.rank_ends.tolist() == [timeline.end(rank)[-1] for rank in range(ranks)]
        assert fast.makespan == timeline.makespan
        assert fast.busy == pytest.approx(timeline.busy, rel=1e-12)
        assert fast.bubble_fraction == pytest.approx(timeline.bubble_fraction, rel=1e-9, abs=1e-12)


@RECEIVES
@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 9])
def test_wavefront_equals_the_simulation_where_a_cpu_starts_the_actions(name, ranks, receives):
    for micro_batches in (1, 3, 8, 21):
        schedule, costs = build_schedule(name, ranks, micro_batches), unequal_stages(ranks, micro_batches)
        for pace in (0.1, 1.0, 3.0):
            host = (pace * np.random.default_rng(ranks).random((4, ranks))).tolist()
            both = (function(schedule, replace(costs, host=host), receives) for function in (step_time, simulate))
            fast, timeline = both
            ends = [timeline.end(rank)[-1] for rank in range(ranks)]
            assert fast.rank_ends.tolist() == pytest.approx(ends, rel=1e-12)
            assert fast.busy == pytest.approx(timeline.busy, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_many_ranks_equal_the_simulation(name):
    """Past the number of ranks from which the simulation itself goes in lockstep."""
    ranks, virtual_stages = 2 * VECTORISED_RANKS, 1 if name in ("GPipe", "1F1B") else 2
    schedule = build_schedule(name, ranks, 3 * ranks, virtual_stages)
    costs = unequal_stages(schedule.stages, 0)
    (starts, ends), _ = both_ways(schedule, costs)
    timeline, fast = simulate(schedule, costs), step_time(schedule, costs)
    np.testing.assert_array_equal(timeline.starts, starts)
    np.testing.assert_array_equal(timeline.ends, ends)
    assert fast.makespan == timeline.makespan
    np.testing.assert_allclose(fast.busy, timeline.busy, rtol=1e-12)


def test_a_thousand_ranks_keep_the_closed_form():
    ranks, micro_batches = 1024, 1024
    costs = Costs([1] * ranks, [2] * ranks, [1] * ranks, [1] * ranks, [0] * (ranks - 1), [0] * (ranks - 1))
    for name in ("GPipe", "1F1B"):
        fast = step_time(build_schedule(name, ranks, micro_batches), costs)
        assert fast.makespan == (micro_batches + ranks - 1) * 3
        assert (fast.makespan - fast.busy).sum() == ranks * (ranks - 1) * 3


def test_the_columns_are_those_of_the_drawing():
    p, m = 3, 4
    rows = [["."] * 2 * (m + p - 1) for _ in range(p)]
    for column, (forward, backward) in enumerate(one_forward_one_backward_columns(p, m)):
        for stage in range(p)[forward]:
            rows[stage][column] = f"F{(column - stage) // 2}"
        for stage in range(p)[backward]:
            rows[stage][column] = f"B{(column + stage + 1 - 2 * p) // 2}"
    assert [" ".join(row) for row in rows] == [
        "F0 . F1 . F2 B0 F3 B1 . B2 . B3",
        ". F0 . F1 B0 F2 B1 F3 B2 . B3 .",
        ". . F0 B0 F1 B1 F2 B2 F3 B3 . .",
    ]


def test_shared_hosts_go_the_slow_way():
    schedule, costs = build_schedule("1F1B", 4, 8), unequal_stages(4, 0, slowdown=(1, 1, 1.5, 2))
    fast, timeline = step_time(schedule, costs), simulate(schedule, costs)
    assert fast.makespan == timeline.makespan
    assert fast.busy.tolist() == timeline.busy.tolist()


def test_a_deadlock_is_found_in_lockstep_too():
    schedule = custom_schedule([parse_row("F0 B0 F1 B1", 0), parse_row("F0 F1 B0 B1", 1)])
    graph = flatten(schedule)
    nothing = np.zeros(8)
    with pytest.raises(ScheduleError, match="B0 on stage 0 waits for B0 of stage 1; F1 on stage 1 waits for F1"):
        run_vectorised(graph, nothing, nothing)


def test_costs_must_fit_the_schedule():
    with pytest.raises(ScheduleError, match="costs are of 3 stages, the schedule has 2"):
        step_time(build_schedule("1F1B", 2, 2), unequal_stages(3, 0))


def test_one_rank_is_never_idle_and_never_less_than_that():
    """Rounding made its bubble -2e-16, which no prediction may be."""
    draw = random.Random(0)
    for _ in range(100):
        costs = Costs([draw.random()], [draw.random()], [0.0], [0.0], [], [])
        schedule = build_schedule("1F1B", 1, draw.randint(1, 40))
        assert 0 <= step_time(schedule, costs).bubble_fraction < 1e-12
        assert simulate(schedule, costs).idle.min() >= 0
