"""The goal of a search, and its limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.records.verdict import Objective

TIE = 0.01  # throughputs closer than this are tied
STEPS = 5  # timed steps of a visit at most
PRICE = 1 / 45  # of the tolerance: what half a visit to the best candidate must be expected to gain
LEAST_STEPS = 2  # timed steps of a candidate that is recommended; one that has fewer was stopped early


@dataclass(frozen=True)
class Goal:
    """``throughput``: the highest, and of those within ``tolerance`` the leanest. ``memory``: the leanest candidate
    whose throughput is within ``tolerance`` of the highest. ``price``: as PRICE."""

    objective: Objective = "throughput"
    tolerance: float = TIE
    price: float = PRICE

    @property
    def gain(self) -> float:
        """The relative gain in throughput that is worth a trial."""
        return self.tolerance if self.objective == "throughput" else min(TIE, self.tolerance)


@dataclass(frozen=True)
class Limits:
    """The limits of a search: seconds of trials, number of trials (None: no limit), or not before all candidates have
    run."""

    budget_s: float | None = None
    trials: int | None = None
    exhaustive: bool = False


def exhaustive_seconds(step_times_s: Sequence[float]) -> float:
    """Return seconds to confirm every candidate: an untimed step and as many timed ones as a visit has at most."""
    return (1 + STEPS) * sum(step_times_s)
