"""Times beyond the measured micro-batch sizes: that they are extrapolated, and how far off they may be.

How much longer a sequence takes in small micro-batches is a property of kernels that only timing shows. ::

    seconds of a sequence
      |   :                          :  what it may be, in nine of ten cases
      |   :   x
      |   :     x - - x              x  measured
      |   :             :
      +---1---2---4---8-+-----> b
          extrapolated  extrapolated

In smaller micro-batches the time of a sequence may fall a little, stay, or double, where launches of kernels and memory
set the pace; in larger ones the same the other way round. Where there are two sizes or more, the last two bound what a
still larger one can gain: losses of small micro-batches do not grow with the size. The bounds are from published runs
(``python -m tests.bench backtest`` counts how many lie within).
"""

from math import log
from typing import NamedTuple

from autotune.predict.uncertainty import QUANTILE
from autotune.records.prediction import Basis
from autotune.records.profile import Profile, StageProfile
from autotune.records.stage_costs import StageTime

MOST = 2.0
"""How many times longer a sequence takes in smaller micro-batches, at most."""
SLOWER_ALONE = 1.0
"""Exponent of how many times longer a sequence takes in so many times smaller micro-batches, at most."""
SLOWER_TOGETHER = 0.15
"""Exponent of how many times longer a sequence takes in so many times larger micro-batches, at most."""


class Doubt(NamedTuple):
    """Bounds of a time over its extrapolated value: at most 1 and at least 1; both are 1 where nothing is doubted."""

    low: float = 1.0
    high: float = 1.0

    @property
    def sigma(self) -> float:
        """Relative standard deviation that stands for both sides."""
        return (log(self.high) - log(self.low)) / (2 * QUANTILE)


def basis_of(profile: Profile, micro_batch_size: int) -> Basis:
    """Return where the times of a micro-batch size come from; what is least of all stages."""
    if profile.estimate is not None:
        return Basis.ESTIMATED
    found = [basis_of_stage(stage, micro_batch_size) for stage in profile.stages]
    return next(basis for basis in (Basis.EXTRAPOLATED, Basis.INTERPOLATED, Basis.MEASURED) if basis in found)


def basis_of_stage(stage: StageProfile, micro_batch_size: int) -> Basis:
    """Return where one stage's times of a micro-batch size come from."""
    sizes = [row.micro_batch_size for row in stage.time_s]
    if micro_batch_size in sizes:
        return Basis.MEASURED
    return Basis.INTERPOLATED if sizes[0] < micro_batch_size < sizes[-1] else Basis.EXTRAPOLATED


def doubt(profile: Profile, micro_batch_size: int) -> Doubt:
    """Return the bounds of the time that all stages together take for a micro-batch, over the extrapolated one."""
    if basis_of(profile, micro_batch_size) is not Basis.EXTRAPOLATED:
        return Doubt()
    central = [stage.seconds(micro_batch_size, whole) for stage in profile.stages]
    bounds = [bounds_of(stage, micro_batch_size) for stage in profile.stages]
    total = sum(central)
    if not total:
        return Doubt()
    return Doubt(
        min(1.0, sum(low for low, _ in bounds) / total),
        max(1.0, sum(high for _, high in bounds) / total),
    )


def whole(times: StageTime) -> float:
    """Return seconds of forward and backward."""
    return times.t_f + times.backward


def bounds_of(stage: StageProfile, micro_batch_size: int) -> tuple[float, float]:
    """Return between which seconds one stage's forward and backward may lie."""
    central = stage.seconds(micro_batch_size, whole)
    if basis_of_stage(stage, micro_batch_size) is not Basis.EXTRAPOLATED:
        return central, central
    first, last = stage.time_s[0], stage.time_s[-1]
    if micro_batch_size < first.micro_batch_size:
        times = first.micro_batch_size / micro_batch_size
        edge, falls, rises = whole(first) / times, SLOWER_TOGETHER, SLOWER_ALONE
    else:
        times = micro_batch_size / last.micro_batch_size
        edge, falls, rises = whole(last) * times, last_gain(stage), SLOWER_TOGETHER
    low, high = max(times**-falls, 1 / MOST), min(times**rises, MOST)
    return min(central, edge * low), max(central, edge * high)


def last_gain(stage: StageProfile) -> float:
    """Return the exponent by which a sequence gets quicker in larger micro-batches, at most: as between the two largest
    sizes, or ``SLOWER_ALONE`` where there is one size. Never less than ``SLOWER_TOGETHER``."""
    if len(stage.time_s) < 2:
        return SLOWER_ALONE
    before, last = stage.time_s[-2:]
    sizes = last.micro_batch_size / before.micro_batch_size
    if not whole(before) or not whole(last):
        return SLOWER_ALONE
    gain = log(whole(before) * sizes / whole(last)) / log(sizes)
    return min(SLOWER_ALONE, max(SLOWER_TOGETHER, gain))
