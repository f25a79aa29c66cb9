"""The contiguous cut of the layers with the shortest predicted step, by the simulator's own account.

The simulator's step is no sum over stages, so dynamic programming alone does not find its minimum. It finds bounds:
a rank waits for the first micro-batch to come to it, does all of its own work, and sees the last one back ::

    bound(cut) = max over stages s of   P(first layer of s) + m T(s)     P: forward and backward of all layers before

The least bound of what is left is a table over (stage, first layer). With it cuts come in the order of their bounds,
and are simulated one after the other until the next bound is no less than the best step: then no cut is better.
"""

import heapq
from collections.abc import Callable
from itertools import accumulate
from math import inf
from typing import NamedTuple

from autotune.predict.predict import predict, simulate_step
from autotune.predict.recut import PARTS, layer_rows, layer_seconds, measured_split, ranges, ratio, recut
from autotune.records.job.split import Split
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile
from autotune.schedule_spec import SCHEDULES

MOST_CUTS = 100  # that are simulated for one candidate


class BestCut(NamedTuple):
    """The best cut that was found, the seconds of its step, and ``bound_s``, which no cut is quicker than: the same
    where it is proven to be the best."""

    split: Split
    step_s: float
    bound_s: float


class Work:
    """Seconds of stages for one micro-batch, alone; ``is_split``: of schedules that split the backward."""

    def __init__(self, profile: Profile, size: int, is_split: bool) -> None:
        before = measured_split(profile)
        assert before is not None, "layers are measured of stages that tell how many they have"
        self.is_split, rows = is_split, layer_rows(profile)
        self.sums, self.factors = {}, {}
        for part in PARTS[:4]:
            sums = self.sums[part.name] = [0.0, *accumulate(layer_seconds(row, size, part.of) for row in rows)]
            self.factors[part.name] = [
                ratio(stage.seconds(size, part.of), sums[own.stop] - sums[own.start])
                for stage, own in zip(profile.stages, ranges(before), strict=True)
            ]

    def part(self, name: str, stage: int, first: int, end: int) -> float:
        """Return one part of what a stage of these layers takes."""
        return self.factors[name][stage] * (self.sums[name][end] - self.sums[name][first])

    def seconds(self, stage: int, first: int, end: int) -> float:
        """Return what forward and backward of a stage of these layers take at least."""
        backward = self.part("t_bw", stage, first, end)
        if self.is_split:
            backward = min(backward, self.part("t_b", stage, first, end) + self.part("t_w", stage, first, end))
        return self.part("t_f", stage, first, end) + backward

    def before(self, first: int) -> float:
        """Return what a micro-batch takes at least in all layers before, on its way there and, unless weight gradients
        may be computed meanwhile, back."""
        names = ("t_f",) if self.is_split else ("t_f", "t_bw")
        return sum(min(self.factors[name]) * self.sums[name][first] for name in names)


def best_cut(profile: Profile, candidate: Candidate, memory_limit: int | None, most: int = MOST_CUTS) -> BestCut | None:
    """Return the cut of a candidate's layers with the shortest step that fits in memory; None where none does."""
    is_split = SCHEDULES[candidate.schedule].backward == "split"
    work, stages = Work(profile, candidate.micro_batch_size, is_split), len(profile.stages)
    layers, m = len(layer_rows(profile)), candidate.micro_batches

    def bound(stage: int, first: int, end: int) -> float:
        return work.before(first) + m * work.seconds(stage, first, end)

    left = least_bounds(bound, stages, layers)
    queue: list[tuple[float, Split, int]] = [(left[0][0], (), 0)]
    best, best_s, simulated = None, inf, 0
    while queue:
        least, cut, first = heapq.heappop(queue)
        if least >= best_s or simulated >= most:
            return BestCut(best, best_s, min(least, best_s)) if best else None
        if len(cut) == stages:
            simulated += 1
            step_s = seconds_of(profile, candidate, cut, memory_limit)
            best, best_s = (cut, step_s) if step_s < best_s else (best, best_s)
            continue
        after = len(cut) + 1
        for end in range(first + 1, layers - (stages - after) + 1):
            further = max(least, bound(len(cut), first, end), left[after][end])
            if (end == layers) == (after == stages) and further < best_s:
                heapq.heappush(queue, (further, (*cut, end - first), end))
    return BestCut(best, best_s, best_s) if best else None


def seconds_of(profile: Profile, candidate: Candidate, cut: Split, memory_limit: int | None) -> float:
    """Return the predicted step of a candidate that is cut so; infinity where it does not fit."""
    of_cut, one = recut(profile, cut), candidate.model_copy(update={"split": cut})
    if memory_limit is not None and predict(of_cut, one, memory_limit).fits is False:
        return inf
    return simulate_step(of_cut, one).seconds


def least_bounds(bound: Callable[[int, int, int], float], stages: int, layers: int) -> list[list[float]]:
    """Return ``table[stage][first]``: the least that the highest bound of stages from this one on can be, where they
    hold all layers from ``first`` on."""
    table = [[inf] * (layers + 1) for _ in range(stages + 1)]
    table[stages][layers] = 0.0
    for stage in range(stages - 1, -1, -1):
        for first in range(stage, layers - (stages - stage) + 1):
            table[stage][first] = min(
                max(bound(stage, first, end), table[stage + 1][end]) for end in range(first + 1, layers + 1)
            )
    return table
