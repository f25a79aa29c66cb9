"""The conclusion of a search: each candidate's estimate, the pick and how sure it is, and why the search ended."""

from enum import StrEnum
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from autotune.records.base import Record

Objective = Literal["throughput", "memory"]


class Estimate(Record):
    """The estimate of a candidate's step, from its prediction and every measurement."""

    step_time_s: PositiveFloat
    """Estimated seconds of a step."""
    step_time_low_s: PositiveFloat
    """Lower end of the 90 % interval, seconds."""
    step_time_high_s: PositiveFloat
    """Upper end of the 90 % interval, seconds."""
    throughput_seq_s: PositiveFloat
    """Throughput, sequences per second."""


class StopReason(StrEnum):
    """Why a search ended."""

    RUNNING = "running"  # it has not ended yet
    DECIDED = "decided"  # further steps would cost more than they are expected to gain
    ALL_MEASURED = "all_measured"  # every candidate that may be tried was
    NOTHING_LEFT = "nothing_left"  # those that were not measured failed or were ruled out
    BUDGET = "budget"  # of seconds
    TRIALS = "trials"  # as many as were allowed
    SAME_FAILURE = "same_failure"  # every trial failed alike
    INFEASIBLE = "infeasible"  # nothing fits in memory
    INTERRUPTED = "interrupted"
    DEVICES = "devices"  # devices or ranks were lost
    STORAGE = "storage"  # the study could not be written


class Stop(Record):
    """Why a search ended."""

    reason: StopReason
    """The reason."""
    limit: NonNegativeFloat | None = None
    """The budget in seconds, or the number of trials, where that was the reason."""
    message: str | None = None
    """Words for it, where the reason alone does not say enough."""


class Verdict(Record):
    """The pick (index of a candidate that ran; None if none did) and how sure it is.

    ``certainty``: the probability that the pick's throughput is within ``tolerance`` of the best; with the objective
    memory, that it is the right choice by both. ``undecided_with``: the candidates that might be the right choice
    instead, the likeliest first. None: not known.
    """

    pick: NonNegativeInt | None
    certainty: NonNegativeFloat | None = Field(default=None, le=1)
    undecided_with: tuple[NonNegativeInt, ...] = ()
    objective: Objective = "throughput"
    tolerance: PositiveFloat
    stop: Stop
