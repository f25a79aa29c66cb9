"""The simulator against algebra: closed forms, hand-computed timelines, and orders that cannot run."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from autotune.predict.schedules import ScheduleError, build_schedule, custom_schedule, parse_row
from autotune.predict.simulator.simulate import Costs, simulate


def equal_stages(stages, t_f=1.0, t_b=1.0, t_w=0.0, link=0.0, slowdown=None):
    """Costs of equal stages; the fused backward is t_b + t_w."""
    links = [link] * (stages - 1)
    return Costs([t_f] * stages, [t_b + t_w] * stages, [t_b] * stages, [t_w] * stages, links, links, slowdown)


@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize(("t_f", "t_b", "t_w"), [(1, 1, 0), (1, 2, 0), (3, 1, 0), (2, 3, 4)])
def test_closed_forms_of_equal_stages(name, ranks, t_f, t_b, t_w):
    """Idle device time p(p-1)(t_f+t_b), efficiency m/(m+p-1), step (m+p-1)(t_f+t_b), with t_b + t_w for t_b.

    Whole numbers of seconds: floating point is exact, so the comparison is too. Under 1F1B the forms hold for m >= p.
    """
    for micro_batches in (1, 2, 3, 4, 8, 16, 33):
        if name == "1F1B" and micro_batches < ranks:
            continue
        timeline = simulate(build_schedule(name, ranks, micro_batches), equal_stages(ranks, t_f, t_b, t_w))
        both = t_f + t_b + t_w
        assert timeline.makespan == (micro_batches + ranks - 1) * both
        assert timeline.idle.sum() == ranks * (ranks - 1) * both
        efficiency = Fraction(micro_batches, micro_batches + ranks - 1)
        assert timeline.bubble_fraction == pytest.approx(float(1 - efficiency), rel=1e-12)


@pytest.mark.parametrize("name", ["LoopedBFS", "Interleaved1F1B"])
@pytest.mark.parametrize("virtual_stages", [1, 2, 3])
def test_several_stages_per_rank_shorten_the_fill(name, virtual_stages):
    """Step (v m + p - 1)(t_f + t_b), of v stages with t_f each: the fill is v times shorter than with one stage.

    For m >= p, under Interleaved1F1B a multiple of p (Narayanan et al. 2021, section 2.2).
    """
    for ranks in (1, 2, 4, 5):
        for micro_batches in (ranks, 2 * ranks, 5 * ranks):
            schedule = build_schedule(name, ranks, micro_batches, virtual_stages)
            timeline = simulate(schedule, equal_stages(ranks * virtual_stages, 2, 3, 1))
            assert timeline.makespan == (virtual_stages * micro_batches + ranks - 1) * 6


@pytest.mark.parametrize(("t_f", "t_b", "t_w"), [(1, 1, 1), (2, 2, 1), (2, 3, 1), (3, 3, 2), (1, 2, 0)])
@pytest.mark.parametrize(("name", "virtual_stages"), [("InterleavedZeroBubble", 1), ("InterleavedZeroBubble", 3)])
def test_weight_gradients_fill_the_bubble(name, virtual_stages, t_f, t_b, t_w):
    """Idle per rank (p-1)(t_f + t_b - t_w), if t_w <= t_f: ZB-H1 of Qi et al. 2023, table 1."""
    for ranks in (1, 2, 4, 5):
        for micro_batches in (ranks, 2 * ranks, 5 * ranks):
            schedule = build_schedule(name, ranks, micro_batches, virtual_stages)
            timeline = simulate(schedule, equal_stages(ranks * virtual_stages, t_f, t_b, t_w))
            assert timeline.idle.tolist() == [(ranks - 1) * (t_f + t_b - t_w)] * ranks


@pytest.mark.parametrize("name", ["ZBVZeroBubble", "DualPipeV"])
def test_v_shapes_idle_only_until_the_first_micro_batch_arrives(name):
    """With t_f = t_b = t_w = 1: p - 1, in all; no gap inside (Qi et al. 2023, section 6).

    Under torch DualPipeV idles for twice as long: it sends both results of an overlapped pair when the pair has ended.
    """
    for ranks in (1, 2, 4, 5):
        for micro_batches in (2 * ranks, 2 * ranks + 1, 7 * ranks):
            schedule, costs = build_schedule(name, ranks, micro_batches, 2), equal_stages(2 * ranks, 1, 1, 1)
            assert simulate(schedule, costs, receives="early").makespan == 6 * micro_batches + ranks - 1
            in_torch = 2 if name == "DualPipeV" else 1
            assert simulate(schedule, costs).makespan == 6 * micro_batches + in_torch * (ranks - 1)


@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_the_source_documents_example_takes_14_not_10(name):
    assert simulate(build_schedule(name, 4, 4), equal_stages(4)).makespan == 14


def test_1f1b_with_fewer_micro_batches_than_ranks_takes_as_long_as_gpipe():
    for ranks, micro_batches in ((4, 1), (4, 3), (9, 5)):
        costs = equal_stages(ranks, 1, 2)
        both = [simulate(build_schedule(name, ranks, micro_batches), costs).makespan for name in ("GPipe", "1F1B")]
        assert both == [(micro_batches + ranks - 1) * 3] * 2


def test_one_micro_batch_pays_every_stage_and_every_link_once():
    costs = Costs([1, 2, 4], [8, 16, 32], [0] * 3, [0] * 3, [100, 200], [400, 800])
    timeline = simulate(build_schedule("1F1B", 3, 1), costs)
    assert timeline.makespan == 63 + 1500
    assert timeline.end(2).tolist() == [307, 339]
    assert timeline.busy.tolist() == [9, 18, 36]
    assert len(timeline.critical_path()) == 6


def test_a_link_delays_the_receiver_and_keeps_no_one_busy():
    """Two stages, link 1 s each way, receives posted early ::

    0  F0 F1 .  .  B0 B1        F1 runs while F0 is under way
    1  .  .  F0 B0 F1 B1
    """
    timeline = simulate(build_schedule("1F1B", 2, 2), equal_stages(2, link=1.0), receives="early")
    assert timeline.start(0).tolist() == [0, 1, 5, 7]
    assert timeline.start(1).tolist() == [2, 3, 4, 5]
    assert timeline.busy.tolist() == [4, 4]


def test_a_blocking_receive_is_posted_when_the_rank_is_free():
    """The same as torch runs it: the receive of F1 waits for the end of B0, and goes beside B0's message ::

    0  F0 F1 .  .  .  B0 .  .  B1
    1  .  .  F0 B0 .  F1 B1
    """
    timeline = simulate(build_schedule("1F1B", 2, 2), equal_stages(2, link=1.0))
    assert timeline.start(0).tolist() == [0, 1, 5, 8]
    assert timeline.start(1).tolist() == [2, 3, 5, 6]
    assert timeline.busy.tolist() == [4, 4]
    assert timeline.makespan == 9


def test_an_exchange_lasts_as_long_as_its_slower_message():
    """1F1B on two stages, activations 1 s under way, gradients 3 s: B0 and F1 cross, so both take 3 s.

    F0 of stage 1 is received alone (1 s), and so is B1 of stage 0 (3 s). With GPipe no messages cross.
    """
    costs = Costs([1, 1], [1, 1], [1, 1], [0, 0], [1], [3])
    timeline = simulate(build_schedule("1F1B", 2, 2), costs)
    assert timeline.start(1).tolist() == [2, 3, 7, 8]
    assert timeline.start(0).tolist() == [0, 1, 7, 12]
    assert simulate(build_schedule("GPipe", 2, 2), costs).start(1).tolist() == [2, 4, 5, 6]


def test_a_lowered_receive_waits_in_its_place():
    """Torch's lowering places F0, F1 on rank 0 and F0, then B0 on rank 1, each in the next round ::

    0  F0 F1 B0 B1      its receive of B0 stands behind F1: rank 1 had placed B0 when F1 was placed
    1  F0 B0 F1 B1      its receive of F1 stands behind F0: F1 was placed in the round of B0, by a lower rank
    """
    schedule = custom_schedule([parse_row("F0 F1 B0 B1", 0), parse_row("F0 B0 F1 B1", 1)])
    timeline = simulate(schedule, Costs([1, 5], [1, 1], [1, 1], [0, 0], [1], [1]))
    labels = {timeline.graph.label(n): int(timeline.graph.posted[n]) for n in range(8)}
    posted = {label: timeline.graph.label(n) for label, n in labels.items() if n < 8}
    assert posted == {
        "B0 on stage 0": "F1 on stage 0",
        "B1 on stage 0": "B0 on stage 0",
        "F1 on stage 1": "F0 on stage 1",
    }
    assert timeline.start(1).tolist() == [2, 7, 8, 13]


def test_split_backward_needs_only_the_input_gradient():
    """I takes I of the next stage; W fills the wait ::

    0  F0 F1 .  I0 W0 I1 W1
    1  .  F0 I0 F1 I1 W0 W1
    """
    schedule = custom_schedule([parse_row("F0 F1 I0 W0 I1 W1", 0), parse_row("F0 I0 F1 I1 W0 W1", 1)])
    costs = equal_stages(2, t_f=1, t_b=1, t_w=1)
    timeline = simulate(schedule, costs)
    assert timeline.start(0).tolist() == [0, 1, 3, 4, 5, 6]
    assert timeline.start(1).tolist() == [1, 2, 3, 4, 5, 6]


def test_the_critical_path_may_lead_through_the_posting_of_a_receive():
    """Rank 1 is slow: its F1 could have arrived before, but was not asked for ::

    0  F0 F1 .  .  .  .  B0 ...
    1  .  F0======.  F1======
    """
    schedule = build_schedule("GPipe", 2, 2)
    timeline = simulate(schedule, Costs([1, 3], [1, 3], [0, 0], [0, 0], [1], [1]))
    assert [timeline.graph.label(n) for n in timeline.critical_path()[:3]] == [
        "F0 on stage 0",
        "F0 on stage 1",
        "F1 on stage 1",
    ]
    assert timeline.start(1).tolist() == [2, 6, 9, 12]


def test_the_critical_path_is_a_chain_without_gaps():
    rng = np.random.default_rng(0)
    times = rng.random((3, 4)).tolist()
    costs = Costs(*times[:2], times[0], times[1], times[2][:3], times[2][1:])
    timeline = simulate(build_schedule("1F1B", 4, 8), costs)
    path = timeline.critical_path()
    assert timeline.starts[path[0]] == 0
    assert timeline.ends[path[-1]] == timeline.makespan
    gaps = timeline.starts[path[1:]] - timeline.ends[path[:-1]]
    links = {0.0, *times[2], *np.maximum(times[2][:3], times[2][1:])}
    assert all(min(abs(gap - link) for link in links) < 1e-12 for gap in gaps)


# --- shared hosts -------------------------------------------------------------------------------------------------


def test_two_ranks_on_one_core_share_it():
    """Rank 0 computes F0 alone, then both share: F1 and F0' (1 s each) take 2 s side by side.

    ::

        time    0   1       3   4       6   7
        rank 0  F0  F1======    B0======    B1       B1 of rank 0 runs alone
        rank 1      F0======B0  F1======B1
    """
    schedule = custom_schedule([parse_row("F0 F1 B0 B1", 0), parse_row("F0 B0 F1 B1", 1)])
    timeline = simulate(schedule, equal_stages(2, slowdown=(1.0, 2.0)))
    assert timeline.start(0).tolist() == pytest.approx([0, 1, 4, 7])
    assert timeline.start(1).tolist() == pytest.approx([1, 3, 4, 6])
    assert timeline.makespan == pytest.approx(8)
    assert timeline.busy.tolist() == pytest.approx([1 + 2 + 2 + 1, 2 + 1 + 2 + 1])


def test_the_pace_changes_in_the_middle_of_an_action():
    """F of rank 0 takes 3 s of work. Rank 1 computes 1 s of work beside it, at half speed each, from t = 3.

    Rank 0: F0 0-3 alone; F1 from 3: 2 s beside rank 1's F0 (1 s of work done), then B0 of rank 1 (1 s of work,
    2 s), then the last 1 s of work alone: ends at 8.
    """
    costs = Costs([3, 1], [1, 1], [0, 0], [0, 0], [0], [0], slowdown=(1, 2))
    timeline = simulate(build_schedule("1F1B", 2, 2), costs)
    assert timeline.end(0)[:2].tolist() == pytest.approx([3, 8])
    assert timeline.end(1)[:2].tolist() == pytest.approx([5, 7])


def test_a_message_under_way_uses_no_core():
    costs = Costs([1, 1], [1, 1], [0, 0], [0, 0], [5], [5], slowdown=(1, 2))
    assert simulate(build_schedule("1F1B", 2, 1), costs).makespan == pytest.approx(14)


def test_beyond_the_measured_ranks_the_slowdown_grows_in_proportion():
    """Three ranks on one core, of which two were measured: three at once are 3/2 times as slow as two.

    ::

        0  F0 F1=== F2=====         F1 and F0 side by side take 2 s; then F2, F1 and F0 take 3 s
        1     F0=== F1=====
        2           F0=====
    """
    schedule = custom_schedule([parse_row("F0 F1 F2", 0), parse_row("F0 F1", 1), parse_row("F0", 2)])
    timeline = simulate(schedule, equal_stages(3, slowdown=(1.0, 2.0)))
    assert timeline.end(0).tolist() == pytest.approx([1, 3, 6])
    assert timeline.end(1).tolist() == pytest.approx([3, 6])
    assert timeline.end(2).tolist() == pytest.approx([6])


@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_without_slowdown_sharing_changes_nothing(name):
    rng = np.random.default_rng(1)
    rows = rng.random((4, 5)).tolist()
    links = rng.random((2, 4)).tolist()
    schedule = build_schedule(name, 5, 11)
    alone = simulate(schedule, Costs(*rows, *links))
    shared = simulate(schedule, Costs(*rows, *links, slowdown=[1.0] * 5))
    np.testing.assert_allclose(shared.starts, alone.starts, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(shared.ends, alone.ends, rtol=1e-12)


def test_everyone_equally_slow_scales_the_step():
    costs, slow = equal_stages(4, 1, 2), equal_stages(4, 1, 2, slowdown=[3.0] * 4)
    schedule = build_schedule("1F1B", 4, 8)
    assert simulate(schedule, slow).makespan == pytest.approx(3 * simulate(schedule, costs).makespan)


def test_ranks_share_the_cores_of_their_own_host_only():
    """Two hosts of one core; rank 0 and 1 on one, 2 and 3 on the other, every rank with an hour of its own work.

    ::

        host 0   rank 0  F0 F1==    rank 1     F0==     F1 of rank 0 beside F0 of rank 1, at half speed
        host 1   rank 2        F0   rank 3        F0    nobody beside them
    """
    rows = [parse_row("F0 F1", 0), *(parse_row("F0", rank) for rank in (1, 2, 3))]
    costs = replace(equal_stages(4, slowdown=(1.0, 2.0)), hosts=(0, 0, 1, 1))
    timeline = simulate(custom_schedule(rows), costs)
    assert [timeline.end(rank).tolist() for rank in range(4)] == [[1, 3], [3], [4], [5]]


@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_a_host_for_each_rank_is_a_device_for_each(name):
    rng = np.random.default_rng(2)
    rows, links = rng.random((4, 5)).tolist(), rng.random((2, 4)).tolist()
    schedule = build_schedule(name, 5, 11)
    alone = simulate(schedule, Costs(*rows, *links))
    apart = simulate(schedule, Costs(*rows, *links, slowdown=(1.0, 9.0), hosts=range(5)))
    np.testing.assert_allclose(apart.ends, alone.ends, rtol=1e-12)


def test_messages_that_leave_a_host_together_slow_each_other():
    """Messages of 2 s over a way out that takes one at a time; receives are posted from the beginning.

    ::

        time        0   1   2   3   4   5   6
        rank 0      F0  F1
        message 0       --------====            alone for 1 s, then at half speed: 1 s left takes 2
        message 1           --------====        1 s done by then, 1 s left alone: arrives at 5
        rank 1                      F0  F1
    """
    schedule = custom_schedule([parse_row("F0 F1", 0), parse_row("F0 F1", 1)])
    costs = replace(equal_stages(2, link=2.0), hosts=(0, 1), link_contention=(1.0, 2.0))
    assert simulate(schedule, costs, "early").start(1).tolist() == pytest.approx([4, 5])
    one_host = replace(costs, hosts=(0, 0))
    assert simulate(schedule, one_host, "early").start(1).tolist() == pytest.approx([3, 4])


def test_messages_from_different_hosts_do_not_slow_each_other():
    """An exchange: rank 0 sends F1 while rank 1 sends B0."""
    schedule = build_schedule("1F1B", 2, 4)
    free = equal_stages(2, link=0.5)
    contended = replace(free, hosts=(0, 1), link_contention=(1.0, 2.0))
    np.testing.assert_allclose(simulate(schedule, contended).ends, simulate(schedule, free).ends, rtol=1e-12)


# --- orders that cannot run ---------------------------------------------------------------------------------------


def refusal(*rows, slowdown=None):
    schedule = custom_schedule([parse_row(row, rank) for rank, row in enumerate(rows)])
    with pytest.raises(ScheduleError) as caught:
        simulate(schedule, equal_stages(schedule.stages, slowdown=slowdown))
    return str(caught.value)


@pytest.mark.parametrize("slowdown", [None, (1.0, 1.0)])
def test_a_deadlock_names_who_waits_for_what(slowdown):
    message = refusal("F0 B0 F1 B1", "F0 F1 B0 B1", slowdown=slowdown)
    assert "B0 on stage 0 waits for B0 of stage 1" in message
    assert "F1 on stage 1 waits for F1 of stage 0" in message


def test_a_missing_neighbour_is_named():
    assert "F1 on stage 1 waits for F1 of stage 0, which is never done" in refusal("F0 B0", "F0 F1 B0 B1")


def test_a_backward_without_its_forward_is_named():
    message = refusal("F0 F1 B0 B1", "F0 B0 B1")
    assert message == "custom cannot run: B1 on stage 1 waits for F1 of stage 1, which is never done"


def test_a_backward_before_its_forward_is_named():
    assert "B1 on stage 1 waits for F1 of stage 1, which comes later" in refusal("F0 F1 B0 B1", "F0 B0 B1 F1")


def test_a_weight_gradient_needs_its_input_gradient():
    assert "W0 on stage 0 waits for I0 of stage 0, which is never done" in refusal("F0 B0 W0")
    assert "W0 on stage 0 waits for I0 of stage 0, which comes later" in refusal("F0 W0 I0")


def test_an_action_done_twice_is_named():
    assert "F0 on stage 0 is done twice" in refusal("F0 F0 B0")


def test_costs_must_fit_the_schedule():
    with pytest.raises(ScheduleError, match="costs are of 3 stages, the schedule has 2"):
        simulate(build_schedule("GPipe", 2, 2), equal_stages(3))
    with pytest.raises(ValueError, match="2 stages need 2 entries"):
        Costs([1, 1], [1], [1, 1], [1, 1], [0], [0])
