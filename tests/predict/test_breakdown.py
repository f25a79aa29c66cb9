"""The parts of a step: what each one is, by hand, and that they always add up."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.predict.breakdown import StepBreakdown, action_counts, break_down, level
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.predict.simulator.wavefront import step_time
from autotune.schedule_spec import SCHEDULE_NAMES, nearest_legal_m


def costs_of(forward, backward, links=0.0, slowdown=None):
    """Costs of stages with these seconds, all links alike."""
    split, boundary = [seconds / 2 for seconds in backward], [links] * (len(forward) - 1)
    return Costs(forward, backward, split, split, boundary, boundary, slowdown)


def split_of(schedule, costs, **given):
    """The split with whatever is not ``given`` left out of the step: no padding, no optimizer, no overhead."""
    m = schedule.micro_batches
    usual = {
        "best_s": [f + b for f, b in zip(costs.forward, costs.backward, strict=True)],
        "sequences": given.get("micro_batch_size", 1) * m,
        "micro_batch_size": 1,
        "optimizer_s": [0.0] * schedule.ranks,
    }
    return break_down(schedule, costs, step_time(schedule, costs), **(usual | given))


def nonzero(split):
    return {name: seconds for name, seconds in split.mean().items() if abs(seconds) > 1e-12}


@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_equal_stages_and_free_links_leave_only_the_bubble(name):
    """Every rank idles (p-1)(t_f + t_b) and computes m(t_f + t_b)."""
    split = split_of(build_schedule(name, 4, 8), costs_of([1] * 4, [2] * 4))
    assert nonzero(split) == {"compute": 24, "bubble": 9}
    assert split.bubble.tolist() == [9] * 4


def test_a_slow_stage_makes_the_others_wait():
    """Stage 1 takes 6 s instead of 3: 6 micro-batches, and 3 + 3 for the ways of the first and the last, are 42 s.

    With equal stages (4 s) it is 32: a bubble of 8. The slow rank itself idles only for 6, which is all bubble; the
    others idle for 24, of which 9 are bubble, so that all bubbles together are 3 x 8.
    """
    split = split_of(build_schedule("GPipe", 3, 6), costs_of([1, 2, 1], [2, 4, 2]))
    assert split.total.tolist() == [42] * 3
    assert split.compute.tolist() == [18, 36, 18]
    assert split.bubble.tolist() == [9, 6, 9]
    assert split.imbalance.tolist() == [15, 0, 15]


def test_what_free_links_would_save_is_communication():
    schedule = build_schedule("GPipe", 2, 4)
    split = split_of(schedule, costs_of([1, 1], [2, 2], links=0.5))
    assert simulate(schedule, costs_of([1, 1], [2, 2], links=0.5)).makespan == 15 + 4
    assert nonzero(split) == {"compute": 12, "bubble": 3, "communication": 4}


def test_hidden_messages_are_no_communication():
    """Received early, 0.5 s are under way behind 1 s of computing; only the first message each way is seen."""
    schedule, costs = build_schedule("GPipe", 2, 4), costs_of([1, 1], [2, 2], links=0.5)
    step = step_time(schedule, costs, "early")
    given = {"best_s": [3, 3], "sequences": 4, "micro_batch_size": 1, "optimizer_s": [0, 0], "receives": "early"}
    assert break_down(schedule, costs, step, **given).mean()["communication"] == 1


def test_small_micro_batches_lose_to_granularity_and_large_ones_to_padding():
    """Best is 1 s per sequence. 7 sequences as 4 x 2 take 3 s per micro-batch: 7 s of work, 1 of padding, 4 lost."""
    schedule = build_schedule("1F1B", 1, 4)
    split = split_of(schedule, costs_of([1], [2]), best_s=[1.0], sequences=7, micro_batch_size=2)
    assert nonzero(split) == {"compute": 7, "padding": 1, "granularity": 4}


def test_two_ranks_on_one_core_slow_each_other():
    """All that both do takes one core's time; what was computed beside the other took twice as long."""
    schedule, alone = build_schedule("GPipe", 2, 2), costs_of([1, 1], [1, 1])
    shared = costs_of([1, 1], [1, 1], slowdown=[1.0, 2.0])
    split = split_of(schedule, shared)
    timeline = simulate(schedule, shared)
    assert split.slowdown.tolist() == pytest.approx(timeline.busy - simulate(schedule, alone).busy)
    assert split.slowdown.min() > 0
    assert split.compute.tolist() == [4, 4]
    assert split.total == pytest.approx(timeline.makespan)


def test_overheads_and_optimizers_have_their_own_parts():
    """0.25 s of each of 2 x 3 actions; 1 s for each step; the second rank's optimizer takes 5 s, but that rank is done
    with its actions at 7, so that the first one, done at 8, waits for 1 s only after its own 3 s."""
    schedule = build_schedule("GPipe", 2, 3)
    given = {"best_s": [1.5, 1.5], "optimizer_s": [3, 5], "overhead_s": 0.25, "step_overhead_s": 1.0}
    split = split_of(schedule, costs_of([1, 1], [1, 1]), **given)
    assert split.compute.tolist() == [4.5, 4.5]
    assert split.overhead.tolist() == [2.5, 2.5]
    assert split.optimizer.tolist() == [3, 5]
    assert split.imbalance.tolist() == [1, 0]
    assert split.bubble.tolist() == [2, 1]
    assert split.total.tolist() == [7 + 5 + 1] * 2


def test_the_level_of_water_in_a_basin():
    assert level(np.array([5.0, 1.0, 3.0]), 6.0) == 2.5
    assert level(np.array([2.0, 2.0]), 4.0) == 2.0
    assert level(np.array([1.0, 3.0]), 0.0) == 0.0
    assert level(np.array([1.0, 3.0]), 5.0) == float("inf")


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_actions_are_counted_as_they_stand(name):
    schedule = build_schedule(name, 3, 6, 1 if name in ("GPipe", "1F1B") else 2)
    actions = [action for rank in range(3) for action in schedule.actions(rank)]
    counts = action_counts(schedule)
    assert counts.sum() == len(actions)
    for kind, letter in enumerate("FBIW"):
        for stage in range(schedule.stages):
            assert counts[kind, stage] == sum((a.kind, a.stage) == (letter, stage) for a in actions)


def test_a_thousand_ranks_are_split_without_their_timeline():
    ranks = 1024
    split = split_of(build_schedule("1F1B", ranks, 512), costs_of([1] * ranks, [2] * ranks))
    assert nonzero(split) == {"compute": 512 * 3, "bubble": (ranks - 1) * 3}


# --- any step -----------------------------------------------------------------------------------------------------

SECONDS = st.floats(1e-6, 10) | st.sampled_from([0.0, 1.0])


@st.composite
def steps(draw):
    """Any schedule, costs (with links, overheads, shared cores or not) and batch."""
    name = draw(st.sampled_from(SCHEDULE_NAMES))
    virtual_stages = {"GPipe": 1, "1F1B": 1, "ZBVZeroBubble": 2, "DualPipeV": 2}.get(name) or draw(st.integers(1, 3))
    ranks = draw(st.integers(1, 4))
    micro_batches = nearest_legal_m(name, ranks, virtual_stages, draw(st.integers(1, 9)))
    schedule = build_schedule(name, ranks, micro_batches, virtual_stages)
    overhead, size = draw(SECONDS) / 10, draw(st.integers(1, 4))

    def seconds(count):
        return draw(st.lists(SECONDS, min_size=count, max_size=count))

    per_stage = [[overhead + t for t in seconds(schedule.stages)] for _ in range(4)]
    slowdown = draw(st.none() | st.lists(st.floats(1, 4), min_size=1, max_size=5).map(sorted))
    costs = Costs(*per_stage, *(seconds(schedule.stages - 1) for _ in range(2)), slowdown)
    return (
        schedule,
        costs,
        {
            "best_s": seconds(schedule.stages),
            "sequences": draw(st.integers(1, micro_batches * size)),
            "micro_batch_size": size,
            "optimizer_s": seconds(ranks),
            "reduction_s": seconds(ranks),
            "overhead_s": overhead,
            "step_overhead_s": draw(SECONDS),
            "receives": draw(st.sampled_from(["torch", "early"])),
        },
    )


@settings(max_examples=200, deadline=None)
@given(steps())
def test_the_parts_are_not_negative_and_add_up_to_the_step(case):
    schedule, costs, given = case
    timeline = simulate(schedule, costs, given["receives"])
    split = break_down(schedule, costs, timeline, **given)
    after = np.array(given["optimizer_s"]) + given["reduction_s"]
    step = max(timeline.rank_ends + after) + given["step_overhead_s"]
    for part in fields(StepBreakdown):
        seconds = getattr(split, part.name)
        assert seconds.shape == (schedule.ranks,)
        assert (seconds >= 0).all(), part.name
    assert split.total == pytest.approx(np.full(schedule.ranks, step), rel=1e-9, abs=1e-12)
    assert sum(split.mean().values()) == pytest.approx(step, rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(steps())
def test_a_step_and_its_timeline_are_split_alike(case):
    schedule, costs, given = case
    slow = break_down(schedule, costs, simulate(schedule, costs, given["receives"]), **given).mean()
    fast = break_down(schedule, costs, step_time(schedule, costs, given["receives"]), **given).mean()
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(steps())
def test_free_links_and_equal_stages_leave_nothing_to_blame_them_for(case):
    schedule, costs, given = case
    rows = [[row[0]] * schedule.stages for row in costs.work().tolist()]
    links = [[0.0] * (schedule.stages - 1)] * 2
    equal = Costs(*rows, *links, costs.slowdown)
    given["optimizer_s"] = given["reduction_s"] = [1.0] * schedule.ranks
    split = break_down(schedule, equal, step_time(schedule, equal, given["receives"]), **given).mean()
    assert split["communication"] == pytest.approx(0, abs=1e-9)
    assert split["imbalance"] == pytest.approx(0, abs=1e-9)
