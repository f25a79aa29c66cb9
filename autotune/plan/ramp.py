"""A batch ramp as Megatron has it: the global batch grows in steps, one micro-batch size serves them all, m follows.

::

    --rampup-batch-size 16 16 300 --global-batch-size 64 --train-samples 1000

    batch 16  |------------|                                      100 samples each, then the full batch
    batch 32               |------------|
    batch 48                            |------------|
    batch 64                                         |----------------- ... 700 samples

    --step-batch-size-schedule "0:16 100:32 300:64" --train-samples 1000

Steps are whole: a phase ends with the first step after which as many samples are consumed as it asks for, and the next
one is so much shorter. Megatron-LM since April 2026 (532ad926b4) ignores the first form, and warns of it in its log.
"""

from collections.abc import Sequence
from math import ceil, gcd
from typing import NamedTuple

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from autotune.config import divisors
from autotune.errors import UsageError
from autotune.predict.extrapolation import basis_of
from autotune.predict.predict import candidates_for, predict
from autotune.records.base import Record
from autotune.records.prediction import Basis
from autotune.records.profile import Profile
from autotune.schedule_spec import ScheduleName

MOST_PHASES = 4096
ROUNDING = 1e-9  # of a step: thirds of samples do not add up to whole ones exactly


class Ramp(NamedTuple):
    """Megatron's own arguments: batches in sequences of all replicas, samples consumed until the full batch is
    reached, and in all."""

    start: int
    increment: int
    samples: int
    global_batch: int
    train_samples: int
    data_parallel: int = 1


class BatchSteps(NamedTuple):
    """Megatron's ``--step-batch-size-schedule``: from which sample on which batch, ascending, the first from 0 on."""

    entries: tuple[tuple[int, int], ...]
    train_samples: int
    data_parallel: int = 1


SUFFIXES = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_number(text: str) -> int:
    """Return the number in ``2.4B`` or ``320``; raise UsageError for anything else."""
    scale = SUFFIXES.get(text[-1:].upper(), 1)
    try:
        return int(float(text[:-1] if scale > 1 else text) * scale)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--step-batch-size-schedule: {text!r} is no number; write 320, 2.4B or such (K, M, B, T)"
        ) from None


def parse_schedule(text: str, seq_len: int | None) -> tuple[tuple[int, int], ...]:
    """Return first sample and batch of each phase from ``0:16 2.4B:320``; thresholds are in tokens where ``seq_len`` is
    given, else in samples. Raise UsageError where Megatron would refuse."""
    found = []
    for entry in text.replace(",", " ").split():
        threshold, colon, batch = entry.partition(":")
        if not colon:
            raise UsageError(f"--step-batch-size-schedule: {entry!r} lacks its batch; write THRESHOLD:BATCH, as 0:16")
        found.append((parse_number(threshold) // (seq_len or 1), parse_number(batch)))
    found.sort()
    thresholds = [threshold for threshold, _ in found]
    if not found or thresholds[0] != 0:
        raise UsageError("--step-batch-size-schedule: the first threshold must be 0; begin with 0:BATCH")
    if len(set(thresholds)) < len(thresholds) or min(batch for _, batch in found) < 1:
        raise UsageError("--step-batch-size-schedule: thresholds must differ and batches be 1 or more; mend the text")
    return tuple(found)


class PhasePlan(Record):
    """One phase of the ramp: its global batch, its whole steps and the samples that they consume, and one step of a
    replica."""

    global_batch: PositiveInt
    steps: NonNegativeInt
    samples: NonNegativeFloat
    micro_batches: PositiveInt
    schedule: ScheduleName
    step_time_s: NonNegativeFloat
    step_time_low_s: NonNegativeFloat
    step_time_high_s: NonNegativeFloat
    fits: bool | None

    @property
    def seconds(self) -> float:
        """Seconds of the whole phase."""
        return self.steps * self.step_time_s


class SizePlan(Record):
    """What a micro-batch size makes of the whole training, with its 90 % interval. ``fits``: in every phase; None where
    memory is not known. ``basis``: where its times come from; what is extrapolated is never the best."""

    micro_batch_size: PositiveInt
    basis: Basis
    seconds: NonNegativeFloat
    seconds_low: NonNegativeFloat
    seconds_high: NonNegativeFloat
    fits: bool | None
    phases: tuple[PhasePlan, ...]


class RampPlan(Record):
    """Every size that serves all phases: those that fit first, of these those that were timed, of these the quickest;
    ``left_out``: why others do not."""

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


def step_phases(asked: BatchSteps) -> list[tuple[int, float]]:
    """Return the global batch of each phase and the samples between its threshold and the next."""
    if any(batch % asked.data_parallel for _, batch in asked.entries):
        raise UsageError(
            f"--data-parallel: {asked.data_parallel} replicas must divide every batch of --step-batch-size-schedule"
        )
    if asked.train_samples <= asked.entries[-1][0]:
        raise UsageError(
            f"--train-samples: {asked.train_samples} end before the last phase begins with {asked.entries[-1][0]};"
            " give more"
        )
    ends = [*(threshold for threshold, _ in asked.entries[1:]), asked.train_samples]
    return [(batch, float(end - begin)) for (begin, batch), end in zip(asked.entries, ends, strict=True)]


def whole_steps(parts: Sequence[tuple[int, float]]) -> list[tuple[int, int]]:
    """Return global batch and whole steps of each phase: as many as it takes until what has been consumed comes to the
    phase's end, which the phases before may already have passed."""
    consumed, end, found = 0, 0.0, []
    for batch, samples in parts:
        end += samples
        steps = max(0, ceil((end - consumed) / batch - ROUNDING))
        consumed += steps * batch
        found.append((batch, steps))
    return found


def plan_ramp(profile: Profile, ramp: Ramp | BatchSteps, schedule: ScheduleName, memory_limit: int | None) -> RampPlan:
    """Predict every phase with every micro-batch size that divides all of its batches, by the training's length."""
    spans = step_phases(ramp) if isinstance(ramp, BatchSteps) else phases(ramp)
    parts, found, left_out = whole_steps(spans), list[SizePlan](), []
    for size in divisors(gcd(*(batch for batch, _ in parts)) // ramp.data_parallel):
        try:
            found.append(plan_size(profile, parts, ramp.data_parallel, size, schedule, memory_limit))
        except UsageError as error:
            left_out.append(f"micro-batches of {size}: {error}")
    if not found:
        raise UsageError(f"no micro-batch size serves every phase: {'; '.join(left_out)}")
    found.sort(key=lambda plan: (plan.fits is False, plan.basis is Basis.EXTRAPOLATED, plan.seconds))
    return RampPlan(sizes=tuple(found), left_out=tuple(left_out))


def plan_size(
    profile: Profile,
    parts: Sequence[tuple[int, int]],
    data_parallel: int,
    size: int,
    schedule: ScheduleName,
    memory_limit: int | None,
) -> SizePlan:
    """Return the whole training with micro-batches of ``size``; raise UsageError where the schedule takes some
    m not."""
    rows = []
    for batch, steps in parts:
        count, v = batch // data_parallel // size, profile.virtual_stages
        layers = len(profile.stages)
        candidates, notes = candidates_for((count,), (schedule,), (v,), profile.ranks, layers, count * size, size)
        assert candidates and not notes, "one candidate, or UsageError"
        prediction = predict(profile, candidates[0], memory_limit)
        rows.append(
            PhasePlan(
                global_batch=batch,
                steps=steps,
                samples=float(steps * batch),
                micro_batches=count,
                schedule=candidates[0].schedule,
                step_time_s=prediction.step_time_s,
                step_time_low_s=prediction.step_time_low_s,
                step_time_high_s=prediction.step_time_high_s,
                fits=prediction.fits,
            )
        )
    known = {row.fits for row in rows}
    fits = False if False in known else None if None in known else True
    return SizePlan(
        micro_batch_size=size,
        basis=basis_of(profile, size),
        seconds=sum(row.seconds for row in rows),
        seconds_low=sum(row.steps * row.step_time_low_s for row in rows),
        seconds_high=sum(row.steps * row.step_time_high_s for row in rows),
        fits=fits,
        phases=tuple(rows),
    )
