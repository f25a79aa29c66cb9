"""Measuring the reduction of gradients among replicas: alone, at the sizes that are reduced together."""

from collections.abc import Iterable
from itertools import accumulate
from statistics import median

from autotune.pipeline.control.commands import Reduce, StageFacts
from autotune.profile.links import EMPTY_REPEATS, REPEATS, Ask, spread
from autotune.records.profile import LinkTime, Reduction

LEAST_BYTES = 4  # of a gradient


def measure_reduction(ask: Ask, ranks: int, facts: Iterable[StageFacts]) -> Reduction | None:
    """Return how long replicas take to add up gradients, at the slowest of the ``ranks`` places of a pipeline; None
    where they add up none.

    A reduction takes as long as the slowest replica, and no message is faster than a smaller one.
    """
    facts = [fact for fact in facts if fact.bucket_bytes]
    buckets = {size for fact in facts for size in fact.bucket_bytes}
    if not buckets:
        return None

    def slowest(message: int, repeats: int) -> float:
        places = [ask(Reduce(place=place, message_bytes=message, repeats=repeats)) for place in range(ranks)]
        return float(max(median(map(max, zip(*filter(None, answers), strict=True))) for answers in places))

    latency, sizes = slowest(LEAST_BYTES, EMPTY_REPEATS), spread(buckets)
    seconds = list(accumulate((max(latency, slowest(size, REPEATS)) for size in sizes), max))
    carried = seconds[-1] - latency
    return Reduction(
        latency_s=latency,
        bandwidth_bytes_s=sizes[-1] / carried if carried > 0 else None,
        in_backward=all(fact.reduces_in_backward for fact in facts),
        times=tuple(LinkTime(bytes=size, seconds=one) for size, one in zip(sizes, seconds, strict=True)),
    )
