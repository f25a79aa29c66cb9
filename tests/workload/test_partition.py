"""How layers become stages: whole, even, and the remainder where it costs least."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotune.workload.partition import layers_per_stage

SIZES = st.integers(1, 200).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, min(layers, 64))))


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (48, 4, (12, 12, 12, 12)),
        (50, 4, (12, 13, 13, 12)),
        (51, 4, (13, 13, 13, 12)),
        (48, 5, (9, 10, 10, 10, 9)),
        (3, 2, (2, 1)),
        (4, 4, (1, 1, 1, 1)),
        (7, 1, (7,)),
    ],
)
def test_cuts_look_as_drawn(layers, stages, expected):
    assert layers_per_stage(layers, stages) == expected


@given(SIZES)
def test_every_layer_is_in_one_stage(sizes):
    layers, stages = sizes
    counts = layers_per_stage(layers, stages)
    assert len(counts) == stages
    assert sum(counts) == layers


@given(SIZES)
def test_stages_differ_by_one_layer_at_most_and_none_is_empty(sizes):
    counts = layers_per_stage(*sizes)
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1


@given(SIZES)
def test_the_ends_take_of_the_remainder_only_what_the_middle_cannot(sizes):
    layers, stages = sizes
    assume(stages >= 3)
    even, remainder = divmod(layers, stages)
    first, *middle, last = layers_per_stage(layers, stages)
    assert sum(middle) == even * len(middle) + min(remainder, len(middle))
    assert first == even + (remainder == stages - 1)
    assert last == even
