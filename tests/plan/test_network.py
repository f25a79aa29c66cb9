"""What messages between hosts cross and what they find there, by algebra; and files that describe no network."""

from pathlib import Path

import pytest

from autotune.errors import InputError
from autotune.plan.network import (
    Network,
    boundaries,
    connected,
    crossings,
    read_network,
    settled,
)
from autotune.records.profile import Profile

WIRES = {
    "inside": {"latency_s": 1e-6, "bandwidth_bytes_s": 400e9},
    "between": {"latency_s": 5e-6, "bandwidth_bytes_s": 50e9},
}


def network(**more):
    return Network.model_validate({"ranks_per_host": 4, "rails": 4, **WIRES, **more})


def profile(ranks, virtual_stages=1, **more):
    row = {"micro_batch_size": 1, "t_f": 1.0, "t_bw": 2.0}
    stages = [{"time_s": [row]}] * (ranks * virtual_stages)
    return Profile.model_validate({"stages": stages, "virtual_stages": virtual_stages, **more})


def test_the_drawing_of_the_docstring():
    drawn = network(hosts_per_leaf=2)
    names = [drawn.crossing(*pair) for pair in boundaries(16, 1)]
    inside = ["inside"] * 3
    assert names == [*inside, "between", *inside, "above", *inside, "between", *inside]


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("per_leaf", [None, 1, 2, 5])
@pytest.mark.parametrize("v", [1, 2])
def test_crossings_add_up(hosts, per_leaf, v):
    found = crossings(network(hosts_per_leaf=per_leaf), 4 * hosts, v)
    leaves = 1 if per_leaf is None else -(-hosts // per_leaf)
    around = v > 1
    assert found["inside"] == 3 * hosts + (around and hosts == 1)
    assert found["above"] == leaves - 1 + (around and leaves > 1)
    assert found["between"] == hosts - leaves + (around and hosts > 1 and leaves == 1)


def test_a_host_that_is_not_full_is_still_a_host():
    assert crossings(network(), 10, 1) == {"inside": 7, "between": 2}


@pytest.mark.parametrize(
    ("more", "rail_share"),
    [
        ({}, 1),  # two messages, four rails
        ({"rails": 2}, 1),
        ({"rails": 1}, 1 / 2),  # activations and gradients share the one NIC
        ({"pipelines": 2}, 1),
        ({"pipelines": 4}, 1 / 2),
        ({"pipelines": 8, "rails": 8}, 1 / 2),
        ({"pipelines": 8, "rails": 1}, 1 / 16),
    ],
)
@pytest.mark.parametrize("oversubscription", [1, 2, 4])
def test_pipelines_share_the_rails_and_the_fabric_above_the_leaf(more, rail_share, oversubscription):
    made = network(hosts_per_leaf=2, oversubscription=oversubscription, **more)
    assert made.wire("between").bandwidth_bytes_s == pytest.approx(50e9 * rail_share)
    assert made.wire("above").bandwidth_bytes_s == pytest.approx(50e9 * rail_share / oversubscription)
    assert made.wire("above").latency_s == made.wire("between").latency_s == 5e-6
    assert made.wire("inside").bandwidth_bytes_s == 400e9


def test_slower_links_are_those_between_hosts():
    slow = network(hosts_per_leaf=2).slower(2)
    for crossing, times in (("inside", 1), ("between", 2), ("above", 2)):
        fast = network(hosts_per_leaf=2).wire(crossing)
        assert slow.wire(crossing).latency_s == times * fast.latency_s
        assert slow.wire(crossing).bandwidth_bytes_s == fast.bandwidth_bytes_s / times


@pytest.mark.parametrize("v", [1, 2])
def test_connected_joins_every_boundary_both_ways(v):
    made = connected(profile(8, v, shared={"resources": 2, "slowdown": [1, 1]}), network())
    pairs = set(boundaries(8, v))
    assert {(link.from_, link.to) for link in made.links} == pairs | {(there, here) for here, there in pairs}
    assert ((7, 0) in pairs) is (v == 2)
    for link in made.links:
        crosses = {link.from_, link.to} in ({3, 4}, {7, 0})
        assert link.seconds(10**6) == pytest.approx(5e-6 + 2e-5 if crosses else 1e-6 + 2.5e-6)
    assert made.shared is None
    assert Profile.model_validate(made.model_dump(by_alias=True)) == made


def test_without_inside_the_measured_links_count():
    links = [
        {"from": 0, "to": 1, "latency_s": latency, "bandwidth_bytes_s": bandwidth}
        for latency, bandwidth in ((3e-6, 10e9), (1e-6, None), (2e-6, 30e9))
    ]
    found = settled(network(inside=None), profile(3, links=links)).wire("inside")
    assert (found.latency_s, found.bandwidth_bytes_s) == (2e-6, 20e9)
    with pytest.raises(InputError, match=r"without \[inside\].*it has none; describe it"):
        settled(network(inside=None), profile(3))


FILE = "ranks_per_host = 8\nrails = 8\n[between]\nlatency_s = 1e-5\nbandwidth_bytes_s = 5e10\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FILE + "rail = 2\n", "unknown key 'between.rail'; the keys are bandwidth_bytes_s, latency_s"),
        ("racks = 3\n" + FILE, "unknown key 'racks'; the keys are between, hosts_per_leaf, inside, oversubscription"),
        (
            "oversubscription = 2.0\n" + FILE,
            "oversubscription: it holds above the leaf switches, so give hosts_per_leaf",
        ),
        (
            "oversubscription = 0.5\nhosts_per_leaf = 2\n" + FILE,
            "oversubscription: it must be 1 or more (given: 0.5)",
        ),
        (FILE.replace("rails = 8", "rails = 0"), "rails: it must be greater than 0 (given: 0)"),
        (FILE.replace("5e10", "0"), "between.bandwidth_bytes_s"),
        (FILE.replace("bandwidth_bytes_s = 5e10\n", ""), "between.bandwidth_bytes_s: it is missing; give it"),
        ("rails = ", "is not TOML"),
    ],
)
def test_a_wrong_file_ends_in_one_line(text, words, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_network(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) or "TOML" in words


def test_the_shipped_network_is_read_by_its_name():
    found = read_network(Path("dgx-h100"))
    assert (found.ranks_per_host, found.rails, found.between.bandwidth_bytes_s) == (8, 8, 50e9)
    with pytest.raises(InputError, match=r"cannot read network cpu: No such file.*; give a TOML file or dgx-h100"):
        read_network(Path("cpu"))
