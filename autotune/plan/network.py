"""The network that ranks of many hosts are put on, as a user describes it: which messages cross what, and how fast.

::

    rank        0  1  2  3 | 4  5  6  7 | 8  9 10 11 | 12 13 14 15      ranks_per_host = 4, hosts_per_leaf = 2
    host        -- 0 ------+-- 1 -------+-- 2 -------+-- 3 --------
    leaf        ---- 0 ----+------------+---- 1 -----+-------------
    boundary     in in in  ^  in in in  ^  in in in  ^  in in in
                        between       above       between

What is assumed, and goes into no more than ``Network.wire``:

* Ranks lie host by host and leaf by leaf, in their order. In a loop of several stages per rank the last one is joined
  to the first as well.
* A message takes latency + bytes / bandwidth. It passes one NIC (a rail) at each end: NCCL sends from a GPU by the NIC
  beside it, and over NVLink by that of another GPU where the receiver's rail asks for it (PXN). No message is split.
* A pipeline sends two messages out of a host at once, activations to the next host and gradients to the one before. All
  pipelines that go through the host do so at the same moment. They share the rails, each at most one.
* Above the leaf a message has 1 / oversubscription of that: its share while all hosts send.
* Inside a host every message has all of its own wire.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from autotune.config import read_toml
from autotune.errors import InputError
from autotune.records.base import Record
from autotune.records.complaint import explain
from autotune.records.profile import Link, Profile

Crossing = Literal["inside", "between", "above"]
"""The places that a message crosses: nothing but its host; the edge of a host, under one leaf; the fabric above the
leaves."""

MESSAGES_OUT = 2  # of a host and pipeline at once: activations to the next host, gradients to the one before


class Wire(Record):
    """One direction."""

    latency_s: NonNegativeFloat
    """Seconds of an empty message."""
    bandwidth_bytes_s: PositiveFloat | None
    """Bytes per second; null is without limit, as in the links of a profile."""


class Network(Record):
    """Hosts and links, as a user describes them."""

    ranks_per_host: PositiveInt
    """Ranks of one pipeline on each host."""
    rails: PositiveInt
    """NICs of a host."""
    pipelines: PositiveInt = 1
    """Pipelines that go through every host side by side and share the rails."""
    hosts_per_leaf: PositiveInt | None = None
    """Hosts under one leaf switch; null is all."""
    oversubscription: Annotated[float, Field(ge=1.0)] = 1.0
    """The factor by which a message has less bandwidth above the leaves."""
    inside: Wire | None = None
    """Links inside a host; null is the profile's own, which were measured."""
    between: Wire
    """Links between hosts, of one rail."""

    @model_validator(mode="after")
    def _leaves_are_known(self) -> Self:
        if self.oversubscription > 1 and self.hosts_per_leaf is None:
            raise ValueError(
                "oversubscription: it holds above the leaf switches, so give hosts_per_leaf too"
                f" (given: {self.oversubscription:g})"
            )
        return self

    def crossing(self, here: int, there: int) -> Crossing:
        """Return what a message between two ranks passes."""
        hosts = here // self.ranks_per_host, there // self.ranks_per_host
        if hosts[0] == hosts[1]:
            return "inside"
        width = self.hosts_per_leaf
        return "above" if width and hosts[0] // width != hosts[1] // width else "between"

    def wire(self, crossing: Crossing) -> Wire:
        """Return the link that a message crosses, with its share of a shared one."""
        if crossing == "inside":
            assert self.inside is not None, "settled"
            return self.inside
        full = self.between.bandwidth_bytes_s
        share = min(1.0, self.rails / (MESSAGES_OUT * self.pipelines))
        if crossing == "above":
            share /= self.oversubscription
        return Wire(latency_s=self.between.latency_s, bandwidth_bytes_s=full and full * share)

    def slower(self, times: float) -> "Network":
        """Return the network where messages between hosts take ``times`` as long."""
        full = self.between.bandwidth_bytes_s
        wire = Wire(latency_s=times * self.between.latency_s, bandwidth_bytes_s=full and full / times)
        return self.model_copy(update={"between": wire})


def boundaries(ranks: int, virtual_stages: int) -> Iterator[tuple[int, int]]:
    """Return the ranks that send to each other: neighbours, and in a loop the last and the first."""
    yield from ((rank, rank + 1) for rank in range(ranks - 1))
    if virtual_stages > 1 and ranks > 2:
        yield ranks - 1, 0


def crossings(network: Network, ranks: int, virtual_stages: int) -> Mapping[Crossing, int]:
    """Return the number of stage boundaries by the kind of link that they cross."""
    return Counter(network.crossing(*pair) for pair in boundaries(ranks, virtual_stages))


def connected(profile: Profile, network: Network) -> Profile:
    """Return the profile's ranks on the network, each on a device of its own."""
    links = []
    for here, there in boundaries(profile.ranks, profile.virtual_stages):
        wire = network.wire(network.crossing(here, there)).model_dump()
        links += [Link.model_validate({"from": a, "to": b, **wire}) for a, b in ((here, there), (there, here))]
    environment = profile.environment.model_copy(update={"hosts": ()})
    alone = {"links": tuple(links), "shared": None, "calibrations": (), "environment": environment}
    return profile.model_copy(update=alone)


def settled(network: Network, profile: Profile) -> Network:
    """Return the network with the profile's own links inside a host where the file says nothing of them: the median of
    all."""
    if network.inside is not None:
        return network
    if not profile.links:
        raise InputError("network: without [inside] the profile's own links are taken, and it has none; describe it")
    speeds = [link.bandwidth_bytes_s for link in profile.links if link.bandwidth_bytes_s]
    wire = Wire(
        latency_s=median(link.latency_s for link in profile.links), bandwidth_bytes_s=median(speeds) if speeds else None
    )
    return network.model_copy(update={"inside": wire})


def read_network(path: Path) -> Network:
    """Read a network from a TOML file or by the name of one that ships; raise InputError with path and key."""
    table = read_toml(path, "networks")
    try:
        return Network.model_validate(table)
    except ValidationError as error:
        raise InputError(f"network {path}: {explain(error, Network)}") from None
