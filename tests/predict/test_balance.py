"""The best cut is the best: brute force over all cuts finds nothing better in the simulator."""

from itertools import combinations

import pytest

from autotune.predict.balance import best_cut, seconds_of
from autotune.predict.predict import candidates_for, predict
from autotune.predict.recut import recut
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile
from autotune.workload.partition import layers_per_stage

LAYERS = 9


def row(size, f, b):
    return {"micro_batch_size": size, "t_f": f * size, "t_bw": b * size, "t_b": b * size / 2, "t_w": b * size / 2}


def memory(activation):
    return [{"micro_batch_size": s, "activation_bytes": activation * s, "transient_bytes": 10} for s in (1, 8)]


def layer_cost(layer, head, middle):
    """Forward seconds of one sequence: an embedding before the first layer, a head behind the last, one odd layer."""
    return 0.01 + (0.002 if layer == 0 else 0) + (head if layer == LAYERS - 1 else 0) + (middle if layer == 4 else 0)


def make_profile(ranks, head=0.03, middle=0.0, shared=None, virtual_stages=1):
    """Stages that cost a tenth less than their layers by themselves."""
    costs = [layer_cost(layer, head, middle) for layer in range(LAYERS)]
    rows = [
        {
            "layers": [layer],
            "parameters": 100,
            "static_bytes": 1600,
            "time_s": [row(size, cost, 2 * cost) for size in (1, 8)],
            "memory": memory(50),
        }
        for layer, cost in enumerate(costs)
    ]
    stages, first = [], 0
    for count in layers_per_stage(LAYERS, ranks * virtual_stages):
        own = 0.9 * sum(costs[first : first + count])
        stages.append(
            {
                "layers": count,
                "static_bytes": 1600 * count,
                "time_s": [row(size, own, 2 * own) for size in (1, 8)],
                "memory": memory(50 * count),
                "optimizer_s": 0.001 * count,
            }
        )
        first += count
    return Profile.model_validate(
        {
            "stages": stages,
            "layers": rows,
            "virtual_stages": virtual_stages,
            "shared": shared,
            "links": [
                {"from": a, "to": b, "latency_s": 0.001} for a in range(ranks) for b in (a - 1, a + 1) if 0 <= b < ranks
            ],
            "workload": {"batch": 16},
        }
    )


def candidate(ranks, count, schedule="1F1B", virtual_stages=1) -> Candidate:
    return candidates_for((count,), (schedule,), (virtual_stages,), ranks, LAYERS, 16)[0][0]


def every_cut(stages):
    for ends in combinations(range(1, LAYERS), stages - 1):
        yield tuple(b - a for a, b in zip((0, *ends), (*ends, LAYERS), strict=True))


CASES = [
    (make_profile(3), candidate(3, 4)),
    (make_profile(3), candidate(3, 16)),
    (make_profile(3), candidate(3, 1)),
    (make_profile(4, head=0.06, middle=0.02), candidate(4, 8)),
    (make_profile(2, head=0.0), candidate(2, 8)),
    (make_profile(3, head=0.08), candidate(3, 8, "GPipe")),
    (make_profile(2, virtual_stages=2), candidate(2, 4, "Interleaved1F1B", 2)),
    (make_profile(2, virtual_stages=2), candidate(2, 4, "ZBVZeroBubble", 2)),
    (make_profile(2, virtual_stages=2, middle=0.03), candidate(2, 8, "InterleavedZeroBubble", 2)),
    (make_profile(3, shared={"resources": 2, "slowdown": [1.0, 1.0, 1.5]}), candidate(3, 4)),
]


@pytest.mark.parametrize(
    ("profile", "one"), CASES, ids=[f"{number} {one.schedule}" for number, (_, one) in enumerate(CASES)]
)
def test_brute_force_over_all_cuts_finds_nothing_better(profile, one):
    best = min(seconds_of(profile, one, cut, None) for cut in every_cut(len(profile.stages)))
    found = best_cut(profile, one, None)
    assert found.step_s == best
    assert found.bound_s == best  # proven
    assert seconds_of(profile, one, found.split, None) == best


def test_a_heavy_head_takes_layers_from_the_last_stage():
    found = best_cut(make_profile(3), candidate(3, 16), None)
    assert sum(found.split) == LAYERS
    assert found.split[-1] < LAYERS // 3
    assert found.step_s < seconds_of(make_profile(3), candidate(3, 16), (3, 3, 3), None)


def test_a_cut_that_does_not_fit_is_none():
    """Without a limit a stage would hold more than three layers; with one for three it may not."""
    profile, one = make_profile(3, head=0.05), candidate(3, 4)
    free = best_cut(profile, one, None).split
    assert max(free) > 3
    limit = max(predict(recut(profile, (3, 3, 3)), one, None).peak_memory_bytes)
    held = best_cut(profile, one, limit)
    assert predict(recut(profile, held.split), one, limit).fits
    assert held.split != free
    best = min(seconds_of(profile, one, cut, limit) for cut in every_cut(3))
    assert held.step_s == best
    assert best_cut(profile, one, 1) is None


def test_the_cut_that_was_measured_comes_out_as_it_was_measured():
    profile = make_profile(3)
    assert recut(profile, (3, 3, 3)) is profile
    there = recut(profile, (4, 3, 2))
    assert [stage.layers for stage in there.stages] == [4, 3, 2]
    for mine, measured in zip(recut(there, (3, 3, 3)).stages, profile.stages, strict=True):
        assert mine.time_s[0].t_f == pytest.approx(measured.time_s[0].t_f)
        assert mine.memory == measured.memory
        assert mine.static_bytes == measured.static_bytes


def test_a_stage_changes_by_its_layers():
    stage = recut(make_profile(3), (4, 3, 2)).stages[2]
    assert stage.time_s[0].t_f == pytest.approx(0.9 * (0.02 + 0.03))
    assert stage.memory[0].activation_bytes == 100
    assert stage.static_bytes == 3200
    assert stage.optimizer_s == pytest.approx(0.002)


def test_the_proof_is_not_claimed_where_the_search_ends_before():
    found = best_cut(make_profile(3), candidate(3, 4), None, most=1)
    assert found.bound_s < found.step_s
