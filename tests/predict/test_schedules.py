"""Drawings of the schedules, their counts, and their equality with torch's orders."""

import pytest

from autotune.predict.schedules import Action, ScheduleError, build_schedule, custom_schedule, parse_row
from autotune.schedule_spec import why_illegal
from tests.predict.torch_orders import MULTI, constructed_by_torch, drawn_by_torch, executed_by_torch


def test_1f1b_drawing():
    schedule = build_schedule("1F1B", ranks=3, micro_batches=4)
    assert schedule.row(0) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert schedule.row(1) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert schedule.row(2) == "F0 B0 F1 B1 F2 B2 F3 B3"


def test_gpipe_drawing():
    schedule = build_schedule("GPipe", ranks=2, micro_batches=3)
    assert [schedule.row(rank) for rank in range(2)] == ["F0 F1 F2 B0 B1 B2"] * 2


def test_1f1b_with_fewer_micro_batches_than_ranks_warms_up_with_all_of_them():
    schedule = build_schedule("1F1B", ranks=4, micro_batches=2)
    rows = [schedule.row(rank) for rank in range(4)]
    assert rows == ["F0 F1 B0 B1"] * 3 + ["F0 B0 F1 B1"]


def test_actions_are_named():
    assert build_schedule("1F1B", 2, 1).actions(1) == [Action("F", 1, 0), Action("B", 1, 0)]


@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_orders_equal_what_torch_executes(name, ranks):
    for micro_batches in range(ranks, 33):
        ours = build_schedule(name, ranks, micro_batches)
        assert [ours.actions(rank) for rank in range(ranks)] == executed_by_torch(name, ranks, micro_batches)


@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize("name", ["GPipe", "1F1B"])
def test_orders_equal_what_torch_writes_down(name, ranks):
    """Torch 2.13 writes one order down (`_get_pipeline_order`, for tools) and runs another on the last rank of 1F1B.

    There the written order counts its forwards from 1: ``F1 B0 F2 B1 ... Fm B(m-1)``, though no micro-batch m exists.
    What is executed is ``F0 B0 F1 B1 ...``, which is ours. All other ranks agree.
    """
    for micro_batches in range(ranks, 33):
        ours = build_schedule(name, ranks, micro_batches)
        written = drawn_by_torch(name, ranks, micro_batches)
        if name == "1F1B":
            last = [a._replace(micro_batch=a.micro_batch - (a.kind == "F")) for a in written[-1]]
            written[-1] = last
        assert [ours.actions(rank) for rank in range(ranks)] == written


def test_looped_bfs_drawing():
    schedule = build_schedule("LoopedBFS", ranks=2, micro_batches=2, virtual_stages=2)
    assert schedule.row(0) == "0F0 0F1 2F0 2F1 2B1 2B0 0B1 0B0"
    assert schedule.stage_ranks == (0, 1, 0, 1)


def test_interleaved_drawing():
    schedule = build_schedule("Interleaved1F1B", ranks=2, micro_batches=4, virtual_stages=2)
    assert schedule.row(0) == "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3"
    assert schedule.row(1) == "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3"


def test_zero_bubble_drawing():
    """Stage s puts each weight gradient off by s input gradients, and ends with those still owed."""
    schedule = build_schedule("InterleavedZeroBubble", ranks=3, micro_batches=4)
    assert schedule.row(0) == "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3"
    assert schedule.row(1) == "F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3"
    assert schedule.row(2) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3"


def test_zbv_drawing():
    schedule = build_schedule("ZBVZeroBubble", ranks=2, micro_batches=2, virtual_stages=2)
    assert schedule.row(0) == "0F0 0F1 3F0 3I0 3W0 3F1 3I1 3W1 0I0 0W0 0I1 0W1"
    assert schedule.row(1) == "1F0 2F0 1F1 2F1 2I0 2W0 1I0 1W0 2I1 2W1 1I1 1W1"
    assert schedule.stage_ranks == (0, 1, 1, 0)


def test_dual_pipe_v_drawing():
    schedule = build_schedule("DualPipeV", ranks=2, micro_batches=4, virtual_stages=2)
    assert schedule.row(0) == "0F0 0F1 0F2 3F0 3I0 3W0 3F1 0F3 3B1 3F2 0B0 3B2 3F3 0B1 3B3 0I2 0W2 0I3 0W3"
    assert schedule.row(1) == "1F0 2F0 1F1 2F1 1F2 2B0 2F2 1B0 1F3 2B1 2F3 1B1 2B2 1B2 2I3 1I3 2W3 1W3"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("name", MULTI)
def test_orders_of_several_stages_per_rank_equal_torchs(name, ranks):
    """For every m up to 24 that torch admits, and v up to 4: the very order that its constructor makes."""
    compared = 0
    for virtual_stages in range(1, 5):
        for micro_batches in range(1, 25):
            if why_illegal(name, ranks, virtual_stages, micro_batches) is None:
                ours = build_schedule(name, ranks, micro_batches, virtual_stages)
                torchs = constructed_by_torch(name, ranks, virtual_stages, micro_batches)
                assert [ours.actions(rank) for rank in range(ranks)] == torchs, (virtual_stages, micro_batches)
                compared += 1
    assert compared >= 9


@pytest.mark.parametrize("ranks", [1, 2, 5, 8])
@pytest.mark.parametrize("micro_batches", [1, 2, 3, 8, 20])
def test_in_flight(ranks, micro_batches):
    gpipe, one_f_one_b = (build_schedule(name, ranks, micro_batches) for name in ("GPipe", "1F1B"))
    for rank in range(ranks):
        assert gpipe.in_flight(rank) == gpipe.stage_in_flight(rank) == micro_batches
        assert one_f_one_b.in_flight(rank) == one_f_one_b.stage_in_flight(rank) == min(micro_batches, ranks - rank)


def test_a_hand_made_schedule_is_read_and_drawn():
    rows = [parse_row("F0 B0 F1 B1", stage=0), parse_row("1F0 1B0 1F1 1B1", stage=1)]
    schedule = custom_schedule(rows)
    assert schedule.actions(1)[2] == Action("F", 1, 1)
    assert (schedule.ranks, schedule.micro_batches, schedule.stages) == (2, 2, 2)
    assert schedule.row(0) == "F0 B0 F1 B1"
    assert schedule.in_flight(0) == 1


def test_a_hand_made_schedule_must_place_every_stage_on_one_rank():
    with pytest.raises(ScheduleError, match="stage 0 is on another rank"):
        custom_schedule([parse_row("F0 B0", 0), parse_row("0F1 0B1", 1)])
    with pytest.raises(ScheduleError, match="each rank, must act"):
        custom_schedule([parse_row("F0 B0", 0), []])
    with pytest.raises(ScheduleError, match="'X0' is not an action"):
        parse_row("F0 X0", 0)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        (("1F1B", 2, 4, 2), "exactly 1 stage"),
        (("Zigzag", 2, 4), "no schedule 'Zigzag'"),
        (("GPipe", 2, 0), "at least 1 of micro-batches"),
    ],
)
def test_impossible_sizes_are_refused(sizes, reason):
    with pytest.raises(ScheduleError, match=reason):
        build_schedule(*sizes)
