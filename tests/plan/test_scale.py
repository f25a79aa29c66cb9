"""An extrapolated profile keeps what it must, and steps of a thousand ranks answer to algebra."""

from statistics import mean

import numpy as np
import pytest

from autotune.errors import InputError, UsageError
from autotune.plan.extrapolate import extrapolate
from autotune.plan.network import Network, connected
from autotune.plan.scale import (
    Request,
    evaluate,
    expected_largest,
    nearby,
    rank_spread,
    scale,
    straggler_seconds,
)
from autotune.predict.predict import predict, simulate_step
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Costs
from autotune.predict.simulator.wavefront import step_time
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile

FREE = {"latency_s": 0.0, "bandwidth_bytes_s": 1e30}
SLOW = {"latency_s": 0.5, "bandwidth_bytes_s": 1e30}
LAYER = {"t_f": 0.25, "t_b": 0.25, "t_w": 0.125, "t_bw": 0.375}
EMBEDDING, HEAD = 0.5, 3.0


def network(inside=FREE, between=FREE, **more):
    return Network.model_validate({"ranks_per_host": 8, "rails": 8, "inside": inside, "between": between, **more})


def stage(layers, extra=0.0):
    """Figures that binary fractions hold exactly; ``extra`` is of the embedding, or of the head."""
    rows = [
        {
            "micro_batch_size": size,
            **{name: size * (layers * seconds + extra) for name, seconds in LAYER.items()},
            "samples_f": [size * (layers * LAYER["t_f"] + extra)] * 3,
        }
        for size in (1, 4)
    ]
    memory = [
        {
            "micro_batch_size": size,
            "activation_bytes": round(size * (100 * layers + 8 * extra)),
            "transient_bytes": 7 * size,
            "split_held_bytes": size * 50 * layers,
        }
        for size in (1, 4)
    ]
    return {
        "layers": layers,
        "time_s": rows,
        "memory": memory,
        "static_bytes": round(1000 * layers + 64 * extra),
        "optimizer_s": layers / 8 + extra,
        "optimizer_transient_bytes": 16 * max(12, layers),  # never less than measured
    }


def profile(layers=(12, 12, 12, 12), embedding=0.0, head=0.0, **more):
    extras = [embedding, *[0.0] * (len(layers) - 2), head]
    document = {"stages": [stage(*pair) for pair in zip(layers, extras, strict=True)], "workload": {"batch": 64}}
    return Profile.model_validate(document | more)


# --- the profile on paper -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [1, 2])
@pytest.mark.parametrize("layers", [(12, 13, 13, 12), (3, 5, 4, 3)])
def test_as_many_ranks_and_layers_make_the_profile_itself(v, layers):
    links = [{"from": 0, "to": 1, "latency_s": 1.0}]
    facts = {"batch": 64, "layers": sum(layers), "stages": 4 // v}
    made = profile(layers, EMBEDDING, HEAD, virtual_stages=v, links=links, workload=facts, drift=0.01)
    assert extrapolate(made, made.ranks, v) == made
    if layers == (12, 13, 13, 12):  # as torch's stages are cut
        assert extrapolate(made, made.ranks, v, sum(layers)) == made


def test_devices_that_are_not_here_are_taken_to_be_as_full_as_the_fullest():
    made = profile(outside_bytes=(5, 9, 7, 5))
    assert extrapolate(made, 4, 1).outside_bytes == (5, 9, 7, 5)
    assert extrapolate(made, 16, 1).outside_bytes == 9


def test_the_middle_is_repeated_in_turn_and_the_ends_stay():
    made = profile((10, 11, 12, 13, 9), EMBEDDING, HEAD)
    longer = extrapolate(made, 9, 1)
    assert [one.layers for one in longer.stages] == [10, 11, 12, 13, 11, 12, 13, 11, 9]
    first, *middle, last = longer.stages
    assert (first, last) == (made.stages[0], made.stages[-1])
    assert set(middle) == set(made.stages[1:-1])


@pytest.mark.parametrize("count", [1, 3, 12, 20])
def test_every_cost_follows_the_layers_and_the_ends_keep_what_is_theirs(count):
    """Every figure is a line in the layers; so a stage that was resized equals one that was made so."""
    found = extrapolate(profile(embedding=EMBEDDING, head=HEAD), 16, 1, 16 * count)
    assert found == profile((count,) * 16, EMBEDDING, HEAD)


def test_an_end_that_was_measured_quicker_than_the_middle_keeps_to_its_own_pace():
    made = profile((12, 13, 13, 12), embedding=-0.25)
    longer = extrapolate(made, 8, 1, 8 * 24)
    assert longer.stages[0].time_s[0].t_f == pytest.approx(2 * made.stages[0].time_s[0].t_f)


def test_stages_can_be_cut_again_two_to_a_rank():
    made = extrapolate(profile(embedding=EMBEDDING, head=HEAD), 16, 2)
    assert made == profile((6,) * 32, EMBEDDING, HEAD, virtual_stages=2)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((12, 12), "there must be 3 stages or more (given: 2)"),
        ((12, None, 12, 12), "stages.1.layers: say how many layers each stage holds"),
        ((12, 0, 12, 12), "stages.1.layers"),
    ],
)
def test_a_profile_that_does_not_tell_layers_from_ends(layers, words):
    document = profile((12,) * len(layers)).model_dump(by_alias=True)
    for one, count in zip(document["stages"], layers, strict=True):
        one["layers"] = count
    with pytest.raises(InputError) as caught:
        extrapolate(Profile.model_validate(document), 16, 1)
    assert words in str(caught.value)


def test_fewer_layers_than_stages():
    with pytest.raises(UsageError, match=r"--layers: 128 stages on 64 ranks need .* \(given: 100\)"):
        extrapolate(profile(), 64, 2, 100)


# --- its steps ----------------------------------------------------------------------------------------------------


def seconds(ranks, count, wires, name="1F1B", v=1):
    paper = connected(extrapolate(profile(), ranks, v), wires)
    paper = paper.model_copy(update={"stages": tuple(s.model_copy(update={"optimizer_s": 0.0}) for s in paper.stages)})
    return simulate_step(
        paper,
        Candidate(micro_batches=count, micro_batch_size=1, sequences=count, schedule=name, virtual_stages=v),
    ).seconds


@pytest.mark.parametrize("ranks", [64, 1024])
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("name", ["1F1B", "GPipe"])
def test_equal_stages_and_free_links(ranks, times, name):
    """step = (m + p - 1)(t_f + t_b); of 12 layers t_f = 3 s, t_b = 4.5 s."""
    assert seconds(ranks, times * ranks, network(), name) == (times * ranks + ranks - 1) * 7.5


@pytest.mark.parametrize("ranks", [64, 256])
def test_equal_stages_and_free_links_two_to_a_rank(ranks):
    """(v m + p - 1) forwards and as many backwards of half a rank's layers."""
    assert seconds(ranks, 2 * ranks, network(), "Interleaved1F1B", 2) == (2 * 2 * ranks + ranks - 1) * 7.5 / 2


@pytest.mark.parametrize("ranks", [64, 1024])
def test_slow_links_between_hosts_delay_the_first_and_the_last_micro_batch_at_every_host(ranks):
    """One micro-batch passes every boundary once each way, so GPipe's step is longer by 2 (p/8 - 1) latencies; with
    more, a receive is posted only when its rank is free, and every one of them pays on the rank that waits."""
    free, slow = network(), network(between=SLOW)
    assert seconds(ranks, 1, slow, "GPipe") - seconds(ranks, 1, free, "GPipe") == 2 * (ranks // 8 - 1) * 0.5
    assert seconds(ranks, 64, slow, "GPipe") - seconds(ranks, 64, free, "GPipe") == pytest.approx(
        2 * (ranks // 8 - 1 + 63) * 0.5
    )


# --- the page's figures -------------------------------------------------------------------------------------------


def test_the_batch_grows_with_the_ranks_and_the_profiles_own_come_first():
    plan = scale(profile(), Request((64, 128), network()))
    assert [(point.ranks, point.batch, point.layers) for point in plan.points] == [
        (4, 64, 48),
        (64, 1024, 768),
        (128, 2048, 1536),
    ]
    assert plan.points[0].efficiency == 1.0
    assert [point.inside + point.between + point.above for point in plan.points] == [3, 63, 127]
    without = profile(workload={})
    assert scale(without, Request((64,), network())).points[-1].batch == 4 * 64


def test_a_point_is_the_prediction_of_its_best_m():
    wires = network(between=SLOW)
    made = profile(embedding=EMBEDDING, head=HEAD)
    point = scale(made, Request((64,), wires, batch=256, memory_limit=10**12)).points[-1]
    paper = connected(extrapolate(made, 64, 1), wires)
    expected = {
        m: predict(paper, Candidate(micro_batches=m, micro_batch_size=256 // m, sequences=256, schedule="1F1B"), 10**12)
        for m in (64, 128, 256)
    }
    rates = {one.micro_batches: one.throughput_seq_s for one in point.evaluated if one.schedule == "1F1B"}
    assert rates == pytest.approx({m: one.throughput_seq_s for m, one in expected.items()})
    best = expected[point.micro_batches]
    assert point.throughput_seq_s == best.throughput_seq_s == max(one.throughput_seq_s for one in point.evaluated)
    assert (point.time_split_s, point.fits) == (best.time_split_s, True)
    assert point.slower_links_s > 0
    assert point.worst_s >= point.high_s > point.step_time_s > point.low_s


def test_what_fits_is_taken_before_what_is_quick():
    costly = profile(action_overhead_s=4.0)  # many small actions do not pay, but hold less
    free = scale(costly, Request((64,), network())).points[-1]
    tight = scale(costly, Request((64,), network(), memory_limit=free.peak_memory_bytes - 1)).points[-1]
    assert tight.fits
    assert tight.micro_batches > free.micro_batches
    none = scale(costly, Request((64,), network(), memory_limit=1)).points[-1]
    assert (none.fits, none.micro_batches) == (False, free.micro_batches)


def test_only_the_given_m():
    point = scale(profile(), Request((64,), network(), micro_batches=(64, 512, 4096))).points[-1]
    assert [one.micro_batches for one in point.evaluated] == [64, 512]  # the batch is 1024
    with pytest.raises(UsageError, match="--micro-batches: none can be simulated with 64 ranks"):
        scale(profile(), Request((64,), network(), micro_batches=(4096,)))


def test_refined_with_the_nearest_divisors():
    assert nearby(12, 240) == [8, 16]
    assert nearby(64, 1024) == []
    request = Request((8,), network(), batch=240)
    paper = connected(extrapolate(profile(action_overhead_s=4.0), 8, 1), network())
    known, _ = evaluate(paper, request, "1F1B", 96, 240)
    counts = [one.micro_batches for one in known]
    assert counts == [2, 4, 8, 16, 32, 64, 128, 240, 24, 48]  # of the first ones 32 is the best


def test_what_has_too_many_actions_is_said():
    paper = connected(extrapolate(profile(), 1024, 2), network())
    request = Request((1024,), network(), virtual_stages=2, micro_batches=(64, 8192), batch=8192)
    known, left_out = evaluate(paper, request, "Interleaved1F1B", 12288, 8192)
    assert ({one.micro_batches for one in known}, left_out) == ({64}, (8192,))


def test_ranks_out_of_range():
    for ranks in (3, 4097):
        with pytest.raises(
            UsageError, match=f"--stages: {ranks} ranks cannot be made from a profile of 4; give 4 to 4096"
        ):
            scale(profile(), Request((ranks,), network()))


# --- stragglers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 64, 1024])
def test_the_expected_largest_of_normal_variables(count):
    drawn = np.random.default_rng(0).standard_normal((4000, count)).max(axis=1)
    assert expected_largest(count) == pytest.approx(drawn.mean(), abs=0.05)


def test_spread_is_that_of_the_middle_per_layer_and_the_drift():
    assert rank_spread(profile((12, 13, 13, 12), head=HEAD)) == 0.0
    assert straggler_seconds(profile(), 64, TIMES) is None
    assert rank_spread(profile(drift=0.03)) == pytest.approx(0.03)
    document = profile().model_dump(by_alias=True)
    for row in document["stages"][2]["time_s"]:
        row |= {"t_f": 1.1 * row["t_f"], "t_bw": 1.1 * row["t_bw"]}
    assert rank_spread(Profile.model_validate(document)) == pytest.approx(0.1 / 1.05 / 2**0.5)


TIMES = scale(profile(), Request((64,), network())).points[-1].time_split_s


@pytest.mark.parametrize("ranks", [64, 256])
def test_stragglers_by_formula_and_by_simulation(ranks):
    """Ranks whose paces are drawn at random, against sigma · E(p) · busy; m = 4p."""
    sigma, rng = 0.03, np.random.default_rng(1)
    schedule, links = build_schedule("1F1B", ranks, 4 * ranks), [0.0] * (ranks - 1)

    def step(paces):
        return step_time(schedule, Costs(paces, 2 * paces, paces, paces, links, links)).makespan

    longer = mean(step(1 + sigma * rng.standard_normal(ranks)) for _ in range(40)) - step(np.ones(ranks))
    split = TIMES.model_copy(update={"compute": 12.0 * ranks, "padding": 0.0, "granularity": 0.0})
    one = profile((12,) * 3, drift=sigma)
    formula = straggler_seconds(one, ranks, split) + sigma * expected_largest(3) * 12 * ranks
    assert formula == pytest.approx(longer, rel=0.1)


def test_the_measured_ranks_have_no_stragglers_beyond_their_own():
    points = scale(profile(drift=0.01), Request((64, 256), network())).points
    assert points[0].stragglers_s == 0.0
    shares = [point.stragglers_s / point.step_time_s for point in points]
    assert shares == sorted(shares)
