"""What is said of a plan: every row with what is against it, and where each figure comes from."""

import io

import pytest
from rich.console import Console

from autotune.report.paper.scale import (
    NOT_INCLUDED,
    ON_PAPER,
    SOURCES,
    cells,
    conclusion,
    network_text,
    print_scale,
    trust,
)
from tests.report.scales import make_plan

PLAN = make_plan()


def printed(plan, width=160):
    out = io.StringIO()
    print_scale(plan, Console(file=out, width=width))
    return out.getvalue()


def test_a_row_for_every_number_of_ranks_and_what_it_rests_on():
    text = printed(PLAN)
    rows = [line.split() for line in text.splitlines()]
    assert [row[:3] for row in rows if len(row) > 1 and row[0].isdecimal() and row[1].isdecimal()] == [
        ["4", "48", "64"],
        ["16", "192", "256"],
        ["64", "768", "1024"],
    ]
    for sentence in (ON_PAPER, SOURCES, NOT_INCLUDED):
        assert sentence in text
    assert "p = 64, 1F1B: 16 times the ranks that were profiled; " in text


def test_the_cells_are_the_points_own_figures():
    point = PLAN.points[-1]
    shown = dict(
        zip(("efficiency", "bubble", "messages", "interval", "stragglers", "links"), cells(point)[8:14], strict=True)
    )
    step = point.step_time_s
    assert shown == {
        "efficiency": f"{point.efficiency:.1%}",
        "bubble": f"{point.time_split_s.bubble / point.step_time_s:.1%}",
        "messages": f"{point.time_split_s.communication / step:.1%}",
        "interval": f"±{(point.high_s - step) / step:.1%}",
        "stragglers": f"+{point.stragglers_s / step:.1%}",
        "links": f"+{point.slower_links_s / step:.1%}",
    }


def test_the_worst_is_all_of_it_at_once():
    point = PLAN.points[-1]
    worst = point.efficiency * point.step_time_s / (point.high_s + point.stragglers_s + point.slower_links_s)
    assert f"with all of this against it, {worst:.0%} efficient" in trust(PLAN, point)
    assert f"{worst:.0%} with everything below against it" in conclusion(PLAN)[0]


def test_what_is_not_known_is_said():
    plan = make_plan(drift=0.0, workload={"batch": 1024})
    point = plan.points[-1]
    assert cells(point)[12] == "-"
    assert "stragglers are not known" in trust(plan, point)
    assert "whether it fits in memory is not known" in trust(plan, point)
    assert "The profile shows no difference in pace between ranks or moments; real ranks differ." in plan.assumptions
    assert any(
        "shared the cores" in one for one in make_plan(shared={"resources": 2, "slowdown": [1, 1, 2, 2]}).assumptions
    )
    point = point.model_copy(update={"beyond_sizes": True, "not_simulated": (8192, 16384)})
    assert "were not measured, their times are extrapolated" in trust(plan, point)
    assert "too many actions to simulate at m = 8192, 16384" in trust(plan, point)


def test_memory_decides_and_it_is_said():
    free = PLAN.points[-1]
    tight = make_plan(action_overhead_s=0.02)
    limit = tight.points[-1].peak_memory_bytes - 1
    plan = make_plan(action_overhead_s=0.02, limit=limit)
    assert "would be quicker, but does not fit in memory" in trust(plan, plan.points[-1])
    none = make_plan(limit=1)
    assert none.points[-1].micro_batches == free.micro_batches
    assert "! does not fit in memory with any m that was run." in printed(none)
    assert "It does not fit in the memory limit." in printed(none)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            {},
            "between hosts 20.0 µs and 50 GB/s, its share of 8 NICs of 20.0 µs and 50 GB/s each; all hosts under",
        ),
        ({"pipelines": 8}, "8 ranks to a host, 8 pipelines through each. "),
        ({"pipelines": 8}, "between hosts 20.0 µs and 25 GB/s, its share of 8 NICs"),
        (
            {"hosts_per_leaf": 2, "oversubscription": 4},
            "2 hosts to a leaf; above the leaves 20.0 µs and 12.5 GB/s, oversubscribed 4 to 1.",
        ),
    ],
)
def test_the_network_in_words(network, words):
    plan = make_plan(network=network)
    assert words in network_text(plan.network, plan.inside_measured)


def test_measured_links_are_named_as_such():
    plan = make_plan(network={"inside": None}, links=[{"from": 0, "to": 1, "latency_s": 3e-6}])
    words = network_text(plan.network, plan.inside_measured)
    assert "3.0 µs and no limit of bandwidth (the median of the profile's own links)" in words


def test_a_narrow_terminal():
    assert max(map(len, printed(PLAN, 120).splitlines()[:8])) <= 120
