"""The table of admitted sizes against torch's own constructors."""

import pytest

from autotune.predict.legality import SCHEDULE_NAMES, nearest_legal_m, why_illegal
from tests.predict.torch_orders import SINGLE, constructed_by_torch


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
