"""The search space in Optuna's terms: what tells candidates apart, and the candidate nearest to any point.

Every dimension is one row of ``DIMENSIONS``; a new one (recomputation, layer split) is one more row and a field of
``Candidate``.

The space is flat, one parameter per dimension, although not every combination is a candidate (1F1B needs m >= p, GPipe
has one stage per rank). The two other ways were weighed and left:

* One categorical parameter that names the candidate tells TPE and the Gaussian process nothing of m = 8 lying between
  4 and 16: they would sample without replacement.
* Parameters that exist only under some schedules drop out of the space that all trials share, and with them the joint
  sampling of TPE and GP, which then draw such a parameter at random.

So m is an integer on a logarithmic scale, and a proposal that is no candidate, or was tried already, becomes the
nearest candidate that is left (``Space.nearest``). The trial is recorded with what really ran, so a sampler learns from
the right place, and optuna-dashboard shows m, schedule and stages per rank by their own names.
"""

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autotune.records.job.recompute import Recompute, show_modes
from autotune.records.job.split import show_split
from autotune.records.prediction import Candidate

Key = tuple[int | str, ...]
"""The name of a candidate inside a study: its value in every dimension."""


EVEN = "even"
"""The word for a cut of the layers that is as even as possible."""


class Dimension(NamedTuple):
    """``value(candidate)`` is a number, on a logarithmic scale if ``is_log``, or a word. ``usual``: what trials had
    before there was the dimension."""

    name: str
    value: Callable[[Candidate], int | str]
    is_log: bool = False
    usual: int | str = ""


DIMENSIONS = (
    Dimension("micro_batches", lambda candidate: candidate.micro_batches, is_log=True),
    Dimension("schedule", lambda candidate: candidate.schedule),
    Dimension("virtual_stages", lambda candidate: candidate.virtual_stages),
    Dimension("split", lambda candidate: show_split(candidate.split) if candidate.split else EVEN, usual=EVEN),
    Dimension(
        "recompute",
        lambda candidate: show_modes(candidate.recompute) if candidate.recompute else Recompute.NONE.value,
        usual=Recompute.NONE.value,
    ),
)


def key_of(candidate: Candidate) -> Key:
    """Return the name of a candidate."""
    return tuple(dimension.value(candidate) for dimension in DIMENSIONS)


def params_of(candidate: Candidate) -> dict[str, int | str]:
    """Return the candidate as the parameters of a trial."""
    return {dimension.name: dimension.value(candidate) for dimension in DIMENSIONS}


class Space:
    """The smallest flat space that holds every candidate."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.values = {d.name: sorted({d.value(candidate) for candidate in candidates}) for d in DIMENSIONS}
        self.distributions = {d.name: self._distribution(d) for d in DIMENSIONS}

    def _distribution(self, dimension: Dimension) -> BaseDistribution:
        values = self.values[dimension.name]
        low, high = values[0], values[-1]
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=dimension.is_log)
        return CategoricalDistribution(values)

    def distance(self, point: Mapping[str, Any], candidate: Candidate) -> float:
        """Sum over the dimensions: the share of the range that lies between two numbers, 0 or 1 for two words."""
        total = 0.0
        for dimension in DIMENSIONS:
            here, there = point[dimension.name], dimension.value(candidate)
            low, high = self.values[dimension.name][0], self.values[dimension.name][-1]
            if here == there:
                continue
            if isinstance(there, str) or isinstance(low, str) or isinstance(high, str):
                total += 1.0
            elif dimension.is_log:
                total += abs(log(here / there)) / log(high / low)
            else:
                total += abs(here - there) / (high - low)
        return total

    def nearest(self, point: Mapping[str, Any], candidates: Sequence[Candidate]) -> Candidate:
        """Return the one of ``candidates`` nearest to ``point``; the earlier of two."""
        return min(candidates, key=lambda candidate: self.distance(point, candidate))
