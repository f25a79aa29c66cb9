"""Published sweeps over the micro-batch size, fitted: two runs of each are given, the others are held out."""

from functools import cache
from statistics import fmean, median
from typing import NamedTuple

from autotune.plan.fit.fit import fit
from autotune.records.job.workload import WorkloadFacts
from autotune.records.timed_run import TimedRun
from tests.published.extrapolations import Sweep, sweeps


class HeldOut(NamedTuple):
    """A run that was not given, against what was fitted to those that were."""

    sweep: str
    b: int
    step_s: float
    fitted_s: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        return self.fitted_s / self.step_s - 1

    @property
    def is_covered(self) -> bool:
        return self.low_s <= self.step_s <= self.high_s


class SweepFit(NamedTuple):
    """``regret``: how much longer than the quickest of the sweep a step of the recommended size is."""

    held_out: tuple[HeldOut, ...]
    recommended: int
    regret: float


def given_sizes(sweep: Sweep) -> tuple[int, int]:
    """The smallest size, and the middle one; of an even number the larger of both."""
    sizes = sorted({run.b for run in sweep.runs})
    return sizes[0], sizes[len(sizes) // 2]


def fitted(sweep: Sweep) -> SweepFit:
    given = given_sizes(sweep)
    runs = [TimedRun(micro_batches=run.m, micro_batch_size=run.b, step_time_s=run.step_s) for run in sweep.runs]
    known = [run for run in runs if run.micro_batch_size in given]
    candidates = list(dict.fromkeys(run.candidate for run in runs))
    found = fit(WorkloadFacts(stages=sweep.stages, batch=candidates[0].sequences), known, candidates, None)
    told = dict(found.pairs)
    held_out = [
        HeldOut(
            sweep.name,
            run.micro_batch_size,
            run.step_time_s,
            one.step_time_s,
            one.step_time_low_s,
            one.step_time_high_s,
        )
        for run in runs
        if run not in known
        for one in (told[run.candidate],)
    ]
    steps = {one: fmean(run.step_time_s for run in runs if run.candidate == one) for one in candidates}
    pick = candidates[found.verdict.pick]
    return SweepFit(tuple(held_out), pick.micro_batch_size, steps[pick] / min(steps.values()) - 1)


@cache
def fits() -> tuple[SweepFit, ...]:
    return tuple(map(fitted, sweeps()))


class Summary(NamedTuple):
    """Of all sweeps: runs held out, median error, shares of errors within 8 % and of runs inside the 90 % interval, and
    the mean regret."""

    runs: int
    error: float
    within: float
    covered: float
    regret: float


def summary() -> Summary:
    held_out = [one for found in fits() for one in found.held_out]
    errors = [abs(one.error) for one in held_out]
    return Summary(
        len(held_out),
        median(errors),
        fmean(error <= 0.08 for error in errors),
        fmean(one.is_covered for one in held_out),
        fmean(found.regret for found in fits()),
    )
