"""The table of admitted sizes against torch's own constructors."""

import pytest

from autotune.predict.orders import BUILDERS
from autotune.schedule_spec import (
    SCHEDULE_NAMES,
    SCHEDULES,
    default_schedule,
    nearest_legal_m,
    runnable,
    why_illegal,
)
from tests.predict.torch_orders import MULTI, SINGLE, constructed_by_torch


def refused_by_torch(name, ranks, virtual_stages, micro_batches):
    try:
        constructed_by_torch(name, ranks, virtual_stages, micro_batches)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("ranks", range(1, 6))
@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_the_table_says_what_torch_says(name, ranks):
    """Classes for one stage per rank have no argument for more, so v is swept for the others only."""
    for virtual_stages in (1,) if name in SINGLE else (1, 2, 3):
        for micro_batches in range(1, 15):
            ours = why_illegal(name, ranks, virtual_stages, micro_batches)
            refused = refused_by_torch(name, ranks, virtual_stages, micro_batches)
            assert (ours is not None) == refused, (virtual_stages, micro_batches, ours)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("1F1B", 4, 1, 3), "1F1B on 4 ranks needs at least as many micro-batches as stages (4) (given: 3)"),
        (("DualPipeV", 4, 2, 7), "DualPipeV on 4 ranks needs at least as many micro-batches as stages (8) (given: 7)"),
        (("GPipe", 4, 2, 4), "GPipe runs exactly 1 stage(s) per rank (given: 2)"),
        (("1F1B", 0, 1, 4), "1F1B needs at least 1 of ranks (given: 0)"),
        (
            ("Interleaved1F1B", 4, 2, 9),
            "Interleaved1F1B on 4 ranks needs a number of micro-batches that is a multiple of its rounds (m // p = 2)"
            " (given: 9)",
        ),
    ],
)
def test_a_refusal_gives_the_rule_and_the_value(sizes, message):
    assert why_illegal(*sizes) == message


@pytest.mark.parametrize(
    ("sizes", "nearest"),
    [
        (("1F1B", 4, 1, 2), 4),
        (("1F1B", 4, 1, 9), 9),
        (("DualPipeV", 4, 2, 1), 8),
        (("Interleaved1F1B", 4, 2, 9), 8),
        (("Interleaved1F1B", 4, 2, 11), 10),
        (("ZBVZeroBubble", 4, 2, 5), 5),
        (("ZBVZeroBubble", 4, 1, 5), None),
        (("Zigzag", 4, 1, 5), None),
    ],
)
def test_the_nearest_legal_m(sizes, nearest):
    assert nearest_legal_m(*sizes) == nearest


def test_the_nearest_legal_m_is_found_for_every_size():
    for name in SCHEDULE_NAMES:
        for ranks in range(1, 10):
            for micro_batches in range(1, 80):
                nearest = nearest_legal_m(name, ranks, 2 if name not in SINGLE else 1, micro_batches)
                assert nearest is not None
                closer = range(micro_batches, nearest, 1 if nearest > micro_batches else -1)
                assert all(why_illegal(name, ranks, 2 if name not in SINGLE else 1, m) for m in closer)


def test_every_schedule_has_a_row_and_an_order():
    assert tuple(SCHEDULES) == SCHEDULE_NAMES == tuple(BUILDERS)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_torchs_multi_stage_classes_run_what_is_lowered(name):
    assert (SCHEDULES[name].runtime == "lowered") == (name in MULTI)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_a_backward_is_split_where_torch_orders_weight_gradients(name):
    virtual_stages = SCHEDULES[name].stages_per_rank or 2
    kinds = {action.kind for row in constructed_by_torch(name, 2, virtual_stages, 8) for action in row}
    assert (SCHEDULES[name].backward == "split") == ("W" in kinds)


@pytest.mark.parametrize(
    ("name", "micro_batches", "runs"),
    [("1F1B", 3, "GPipe"), ("1F1B", 4, "1F1B"), ("GPipe", 1, "GPipe"), ("DualPipeV", 3, "DualPipeV")],
)
def test_what_stands_in_on_four_ranks(name, micro_batches, runs):
    assert runnable(name, 4, micro_batches) == runs


@pytest.mark.parametrize(("virtual_stages", "name"), [(1, "1F1B"), (2, "Interleaved1F1B"), (3, "Interleaved1F1B")])
def test_the_default_schedule(virtual_stages, name):
    assert default_schedule(virtual_stages) == name
