"""Measuring the links between ranks: each alone, at the sizes of the candidates' messages, and all of them at once."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from statistics import median
from typing import Any

from autotune.pipeline.control.commands import Command, Exchange, Ping
from autotune.records.profile import Link, LinkTime

MOST_SIZES = 5  # of messages that are timed on each link
REPEATS, EMPTY_REPEATS, EXCHANGES = 8, 20, 3

Ask = Callable[[Command], list[Any]]
"""Asks every rank for the same; returns their answers."""


def measure_links(
    ask: Ask, pairs: Iterable[tuple[int, int]], messages: Iterable[int], hosts: Sequence[str], runs_behind: bool
) -> list[Link]:
    """Return the link of each pair (source, target) with the times of ``messages``, bytes each.

    ``hosts``: of each rank; empty where there is one. ``runs_behind``: whether devices carry messages beside the CPU.
    """
    sizes = spread(messages)
    links = [measure_link(ask, source, target, sizes) for source, target in pairs]
    return together(ask, links, sizes[-1], hosts, runs_behind)


def spread(messages: Iterable[int]) -> list[int]:
    """Return the least and the most bytes, and what lies evenly between them in their order; ascending."""
    sizes = sorted({max(1, message) for message in messages})
    last = len(sizes) - 1
    return sorted({sizes[round(at * last / (MOST_SIZES - 1))] for at in range(MOST_SIZES)})


def measure_link(ask: Ask, source: int, target: int, sizes: Sequence[int]) -> Link:
    """Measure a link alone: half of an almost empty round trip is the latency; what a message adds to it, its time
    beyond that; what the largest adds, the bandwidth.

    No message is faster than a smaller one.
    """

    def round_trip(message: int, repeats: int) -> float:
        ping = Ping(source=source, target=target, there_bytes=message, back_bytes=1, repeats=repeats)
        return float(median(ask(ping)[source]))

    empty = round_trip(1, EMPTY_REPEATS)
    trips = [round_trip(size, REPEATS) for size in sizes]
    slower = accumulate((max(empty, trip) - empty / 2 for trip in trips), max)
    bandwidth = sizes[-1] / (trips[-1] - empty) if trips[-1] > empty else None
    return Link(
        **{"from": source, "to": target},
        latency_s=empty / 2,
        bandwidth_bytes_s=bandwidth,
        times=tuple(LinkTime(bytes=size, seconds=seconds) for size, seconds in zip(sizes, slower, strict=True)),
    )


def together(ask: Ask, links: list[Link], largest: int, hosts: Sequence[str], runs_behind: bool) -> list[Link]:
    """Return the links with what is left of the bandwidth of each while all carry the largest messages, both ways.

    Between hosts they share the way out; within a host GPUs share switches, but on a CPU only the ranks' own cores
    would be measured.
    """

    def is_shared(link: Link) -> bool:
        return runs_behind or (bool(hosts) and hosts[link.from_] != hosts[link.to])

    if not any(map(is_shared, links)):
        return links
    command = Exchange(links=tuple((one.from_, one.to) for one in links), message_bytes=largest, repeats=EXCHANGES)
    seconds = [median(samples) if samples else 0.0 for samples in ask(command)]

    def measured(link: Link) -> Link:
        carried = seconds[link.to] - link.latency_s
        if not is_shared(link) or carried <= 0:
            return link
        return link.model_copy(update={"together_bytes_s": largest / carried})

    return [measured(link) for link in links]
