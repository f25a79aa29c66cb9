"""Runs in, everything else out: the curve of steps with its intervals, a profile that predicts it, the pick, and which
run would tell most."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autotune.errors import UsageError
from autotune.plan.fit.curve import Array, Formula, Posterior, learn
from autotune.plan.fit.memory import RankMemory, learn_memory
from autotune.predict.choice import TIE, choose_among
from autotune.predict.predict import predict
from autotune.records.job.workload import WorkloadFacts
from autotune.records.prediction import Basis, Candidate, Prediction
from autotune.records.profile import Profile, StageProfile
from autotune.records.stage_costs import StageMemory, StageTime
from autotune.records.timed_run import TimedRun
from autotune.records.verdict import Verdict

FURTHEST = 2
"""How many times smaller or larger than any that ran a recommended micro-batch size may be: beyond one doubling neither
its time nor its memory is known."""


class Fitted(NamedTuple):
    """What runs taught: ``profiles``, one for every number of stages per rank, ``pairs`` of candidates with their
    predictions, the ``verdict`` on them, and the index of the one that is worth a run ``next``."""

    profiles: tuple[Profile, ...]
    pairs: tuple[tuple[Candidate, Prediction], ...]
    verdict: Verdict
    next: int | None


def fit(
    facts: WorkloadFacts,
    runs: Sequence[TimedRun],
    candidates: Sequence[Candidate],
    memory_limit: int | None,
    prior: Sequence[TimedRun] = (),
) -> Fitted:
    """Return what ``runs`` of a job on ``facts.stages`` ranks say of ``candidates``. ``prior``: what was expected of
    it, as runs with standard errors. Raises UsageError where there are no runs."""
    if not runs:
        raise UsageError("fit: no run was read; give a CSV or a log with at least one timed step")
    ranks = facts.stages or 1
    posterior = learn(ranks, [*runs, *prior], candidates)
    mean, another = posterior.draws()
    rates = np.array([one.sequences for one in candidates]) / mean
    steps = np.array([one.sequences for one in candidates]) / rates.mean(axis=0)
    memory = learn_memory(ranks, runs) or learn_memory(ranks, prior)
    cuts = sorted({one.virtual_stages for one in candidates})
    profiles = {cut: profile_of(facts, ranks, cut, runs, candidates, steps, posterior, memory) for cut in cuts}
    low, high = np.quantile(another, [0.05, 0.95], axis=0)
    pairs = []
    for at, candidate in enumerate(candidates):
        told = predict(profiles[candidate.virtual_stages], candidate, memory_limit)
        pairs.append((candidate, as_fitted(told, candidate, steps[at], (low[at], high[at]), basis(runs, candidate))))
    may_win = [at for at, (one, told) in enumerate(pairs) if told.fits is not False and within_reach(one, runs)]
    verdict = choose_among(pairs, may_win, rates)
    return Fitted(tuple(profiles.values()), tuple(pairs), verdict, next_run(pairs, rates, runs))


def basis(runs: Sequence[TimedRun], candidate: Candidate) -> Basis:
    """Return whether the candidate itself ran, or smaller and larger micro-batches did, or only one of the two."""
    if candidate in {run.candidate for run in runs}:
        return Basis.MEASURED
    sizes = [run.micro_batch_size for run in runs]
    return Basis.INTERPOLATED if min(sizes) <= candidate.micro_batch_size <= max(sizes) else Basis.EXTRAPOLATED


def as_fitted(
    told: Prediction, candidate: Candidate, step_s: float, interval: tuple[float, float], basis: Basis
) -> Prediction:
    """Return a prediction of the profile with the posterior's own step and interval."""
    tokens = told.throughput_tokens_s
    return told.model_copy(
        update={
            "step_time_s": float(step_s),
            "step_time_low_s": float(min(step_s, interval[0])),
            "step_time_high_s": float(max(step_s, interval[1])),
            "basis": basis,
            "throughput_seq_s": candidate.sequences / float(step_s),
            "throughput_tokens_s": tokens * told.step_time_s / float(step_s) if tokens else None,
        }
    )


def profile_of(
    facts: WorkloadFacts,
    ranks: int,
    cut: int,
    runs: Sequence[TimedRun],
    candidates: Sequence[Candidate],
    steps: Array,
    posterior: Posterior,
    memory: tuple[RankMemory, ...] | None,
) -> Profile:
    """Return the profile of equal stages under which candidates take their fitted steps, at the sizes between the
    smallest and the largest that ran."""
    sizes = [run.micro_batch_size for run in runs]
    own = [(one, step) for one, step in zip(candidates, steps, strict=True) if one.virtual_stages == cut]
    within = [pair for pair in own if min(sizes) <= pair[0].micro_batch_size <= max(sizes)] or own
    constant = posterior.constant(steps)
    rows: dict[int, StageTime] = {}
    for candidate, step in sorted(within, key=lambda pair: pair[0].micro_batch_size):
        formula = Formula.of(ranks, [candidate])
        each = (step - constant) / float(formula.micro_batches[0] + formula.bubble[0]) / cut
        size = candidate.micro_batch_size
        rows.setdefault(size, StageTime(micro_batch_size=size, t_f=each / 3, t_bw=2 * each / 3))
    return Profile(
        workload=facts,
        virtual_stages=cut,
        stages=tuple(stage_of(tuple(rows.values()), memory, stage % ranks, cut) for stage in range(ranks * cut)),
        step_overhead_s=constant,
        drift=posterior.noise,
    )


def stage_of(times: tuple[StageTime, ...], memory: tuple[RankMemory, ...] | None, rank: int, cut: int) -> StageProfile:
    """Return one of the ``cut`` stages of a rank, which share its memory equally."""
    if memory is None:
        return StageProfile(time_s=times)
    own = memory[rank]
    rows = tuple(
        StageMemory(
            micro_batch_size=row.micro_batch_size,
            activation_bytes=round(own.activations * row.micro_batch_size / cut),
        )
        for row in times
    )
    return StageProfile(time_s=times, static_bytes=own.static // cut, memory=rows)


def within_reach(candidate: Candidate, runs: Sequence[TimedRun]) -> bool:
    """Return whether the micro-batch size is near enough to those that ran to be recommended."""
    sizes = [run.micro_batch_size for run in runs]
    return min(sizes) <= candidate.micro_batch_size * FURTHEST and candidate.micro_batch_size <= max(sizes) * FURTHEST


def next_run(pairs: Sequence[tuple[Candidate, Prediction]], rates: Array, runs: Sequence[TimedRun]) -> int | None:
    """Return the candidate that has not run and is expected to gain most over the best that has; None where the gain is
    less than a tenth of TIE."""
    ran = [at for at, (candidate, _) in enumerate(pairs) if candidate in {run.candidate for run in runs}]
    rest = [at for at, (_, told) in enumerate(pairs) if at not in ran and told.fits is not False]
    if not rest:
        return None
    known = rates[:, max(ran, key=lambda at: rates[:, at].mean())] if ran else np.zeros(len(rates))
    gains = {at: float(np.mean(np.maximum(rates[:, at] - known, 0.0) / rates[:, at])) for at in rest}
    best = max(gains, key=lambda at: gains[at])
    return best if gains[best] >= TIE / 10 else None
