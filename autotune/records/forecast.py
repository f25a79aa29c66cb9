"""The Forecast: what a run is likely to cost."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from autotune.records.base import SCHEMA_VERSION, Record

ForecastBasis = Literal["recorded profile", "profile of an earlier run", "arithmetic"]


class Forecast(Record):
    """What a run is likely to cost. ``basis``: where its step times come from; by ``arithmetic`` they may be off by a
    factor of two or three. Seconds are wall time; ``device_s`` counts every rank's device while ranks work.

    ``exhaustive_device_s``: the same with every candidate confirmed.
    """

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    kind: Literal["autotune.forecast"] = "autotune.forecast"
    basis: ForecastBasis
    ranks: PositiveInt
    candidates: PositiveInt
    excluded: NonNegativeInt
    trials: NonNegativeFloat
    real_steps: NonNegativeFloat
    starting_s: NonNegativeFloat
    profiling_s: NonNegativeFloat
    steps_s: NonNegativeFloat
    device_s: NonNegativeFloat
    exhaustive_device_s: NonNegativeFloat

    @property
    def wall_s(self) -> float:
        """Seconds from start to report."""
        return self.starting_s + self.profiling_s + self.steps_s
