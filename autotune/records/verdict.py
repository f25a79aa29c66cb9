"""The conclusion of a search: each candidate's estimate, the pick and how sure it is, what the search took, and why it
ended."""

from enum import StrEnum
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from autotune.records.base import Record

Objective = Literal["throughput", "memory"]
Source = Literal["measured", "predicted"]


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


class ParetoPoint(Record):
    """A candidate that no other beats both in throughput and in peak memory."""

    candidate: NonNegativeInt
    """Index into ``candidates``."""
    throughput_seq_s: float
    """Throughput, sequences per second."""
    peak_memory_bytes: NonNegativeInt
    """Bytes of the fullest rank."""
    source: Source
    """The source: real steps of it, or the prediction alone."""


class Drift(Record):
    """The steadiness of the machine."""

    checks: NonNegativeInt
    """The number of times that candidates which had run were timed again."""
    ratio: PositiveFloat
    """The slowest speed found over the fastest, as a ratio of step times."""
    profile_ratio: PositiveFloat | None
    """Real steps over predicted ones, the median of all."""


class SearchReport(Record):
    """The cost of the search, and why it ended."""

    sampler: str
    """Who proposed candidates."""
    controller: str | None = None
    """Whose report this is, where several controllers share the study."""
    trials: NonNegativeInt
    """Trials of this run."""
    earlier_trials: NonNegativeInt = 0
    """Trials that were taken over from earlier runs, or from other controllers."""
    real_steps: NonNegativeInt
    """Real steps of this run, untimed first ones included."""
    profiling_s: NonNegativeFloat = 0.0
    """Seconds that ranks spent measuring stages and links."""
    steps_s: NonNegativeFloat = 0.0
    """Seconds that ranks spent in real steps."""
    device_s: NonNegativeFloat | None = None
    """Both together, times the ranks."""
    exhaustive_device_s: NonNegativeFloat | None = None
    """The ``device_s`` that confirming every candidate would have taken."""
    wall_s: float
    """Seconds of the search by the clock."""
    stopped_because: str
    """Why it ended, as a sentence."""
    stop: Stop | None = None
    """Why it ended."""
    objective: Objective = "throughput"
    """The objective of the search."""
    tolerance: PositiveFloat | None = None
    """Throughputs this close count as equal."""
    confidence: NonNegativeFloat | None = None
    """The certainty of the sweet spot, in reports of older versions."""
    final: str | None = None
    """The end of turns between close candidates, in reports of older versions."""
    drift: Drift | None = None
    """The machine's steadiness; null where nothing ran."""
    pareto_front: tuple[ParetoPoint, ...] = ()
    """Candidates that no other beats in both throughput and memory, the leanest first."""
