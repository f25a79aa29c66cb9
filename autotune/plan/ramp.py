"""A batch ramp as Megatron has it: the global batch grows in steps, one micro-batch size serves them all, m follows.

::

    --rampup-batch-size 16 16 300 --global-batch-size 64 --train-samples 1000

    batch 16  |------------|                                      100 samples each, then the full batch
    batch 32               |------------|
    batch 48                            |------------|
    batch 64                                         |----------------- ... 700 samples
"""

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

from pydantic import NonNegativeFloat, PositiveInt

from autotune.config import divisors
from autotune.errors import UsageError
from autotune.predict.predict import candidates_for, predict
from autotune.records.base import Record
from autotune.records.profile import Profile
from autotune.schedule_spec import ScheduleName

MOST_PHASES = 4096


class Ramp(NamedTuple):
    """Megatron's own arguments: batches in sequences of all replicas, samples consumed until the full batch is
    reached, and in all."""

    start: int
    increment: int
    samples: int
    global_batch: int
    train_samples: int
    data_parallel: int = 1


class PhasePlan(Record):
    """One phase of the ramp: its global batch, how many samples it consumes, and one step of a replica."""

    global_batch: PositiveInt
    samples: NonNegativeFloat
    micro_batches: PositiveInt
    schedule: ScheduleName
    step_time_s: NonNegativeFloat
    fits: bool | None

    @property
    def seconds(self) -> float:
        """Seconds of the whole phase."""
        return self.samples / self.global_batch * self.step_time_s


class SizePlan(Record):
    """What a micro-batch size makes of the whole training. ``fits``: in every phase; None where memory is not known."""

    micro_batch_size: PositiveInt
    seconds: NonNegativeFloat
    fits: bool | None
    phases: tuple[PhasePlan, ...]


class RampPlan(Record):
    """Every size that serves all phases, the quickest that fits first; ``left_out``: why others do not."""

    sizes: tuple[SizePlan, ...]
    left_out: tuple[str, ...] = ()


def phases(ramp: Ramp) -> list[tuple[int, float]]:
    """Return the global batch of each phase and the samples that it consumes, as in Megatron's
    RampupBatchsizeNumMicroBatchesCalculator: all phases before the full batch consume equally many.

    Raises UsageError where Megatron would refuse, or the training ends before the ramp.
    """
    growth = ramp.global_batch - ramp.start
    if growth < 0 or growth % ramp.increment:
        raise UsageError(
            f"--rampup-batch-size: from {ramp.start} in steps of {ramp.increment} never comes to the global batch of"
            f" {ramp.global_batch}; their difference must be a multiple of the step"
        )
    count = growth // ramp.increment
    if count > MOST_PHASES:
        raise UsageError(f"--rampup-batch-size: {count} phases are too many, at most {MOST_PHASES}; use larger steps")
    if ramp.train_samples < ramp.samples:
        raise UsageError(
            f"--train-samples: {ramp.train_samples} end before the ramp of {ramp.samples} samples does; give more"
        )
    if any(batch % ramp.data_parallel for batch in (ramp.start, ramp.increment)):
        raise UsageError(
            f"--data-parallel: {ramp.data_parallel} replicas must divide the first batch of {ramp.start} and the steps"
            f" of {ramp.increment}"
        )
    rising = [(ramp.start + step * ramp.increment, ramp.samples / count) for step in range(count)]
    return [*rising, (ramp.global_batch, ramp.train_samples - (ramp.samples if rising else 0))]


def plan_ramp(profile: Profile, ramp: Ramp, schedule: ScheduleName, memory_limit: int | None) -> RampPlan:
    """Predicts every phase with every micro-batch size that divides all of its batches, by the training's length."""
    parts, found, left_out = phases(ramp), [], []
    for size in divisors(gcd(ramp.start, ramp.increment) // ramp.data_parallel):
        try:
            found.append(plan_size(profile, parts, ramp.data_parallel, size, schedule, memory_limit))
        except UsageError as error:
            left_out.append(f"micro-batches of {size}: {error}")
    if not found:
        raise UsageError(f"no micro-batch size serves every phase: {'; '.join(left_out)}")
    found.sort(key=lambda plan: (plan.fits is False, plan.seconds))
    return RampPlan(sizes=tuple(found), left_out=tuple(left_out))


def plan_size(
    profile: Profile,
    parts: Sequence[tuple[int, float]],
    data_parallel: int,
    size: int,
    schedule: ScheduleName,
    memory_limit: int | None,
) -> SizePlan:
    """Return the whole training with micro-batches of ``size``; raises UsageError where the schedule takes some
    m not."""
    rows = []
    for batch, samples in parts:
        count, v = batch // data_parallel // size, profile.virtual_stages
        layers = len(profile.stages)
        candidates, notes = candidates_for((count,), (schedule,), (v,), profile.ranks, layers, count * size, size)
        assert candidates and not notes, "one candidate, or UsageError"
        prediction = predict(profile, candidates[0], memory_limit)
        rows.append(
            PhasePlan(
                global_batch=batch,
                samples=samples,
                micro_batches=count,
                schedule=candidates[0].schedule,
                step_time_s=prediction.step_time_s,
                fits=prediction.fits,
            )
        )
    known = {row.fits for row in rows}
    fits = False if False in known else None if None in known else True
    return SizePlan(micro_batch_size=size, seconds=sum(row.seconds for row in rows), fits=fits, phases=tuple(rows))
