"""Whether a figure is worse than the baseline's, beyond doubt and by more than is allowed.

A figure's change is the mean logarithm of the new runs less that of the baseline's, positive where it is worse. Each
run adds its variance ``sigma**2``; where a side has several runs, what these differ by counts too. With the standard
error that follows::

    regression   the change is beyond --max-regression, and with SURE it is not chance
    ok           with CLEAR the change is less than --max-regression
    better       with SURE the figure has become better
    unclear      neither: more runs are needed, and so many that a change of --max-regression would be seen with SURE
"""

from collections.abc import Sequence
from math import ceil, exp, log, log1p
from statistics import NormalDist, mean
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from autotune.config import parse_quantity
from autotune.errors import InputError, UsageError
from autotune.records import SCHEMA_VERSION, Record
from autotune.report.check.figures import QUANTITIES, Figure, Quantity, Unit
from autotune.report.fingerprint import changes_of_machine, changes_of_workload
from autotune.report.record import Report

SURE, CLEAR = 0.99, 0.95  # one-sided
PRIOR_WEIGHT = 4  # what a run says of its own noise, worth so many differences between runs
MOST_RUNS = 999

Verdict = Literal["regression", "ok", "better", "unclear"]


class Comparison(Record):
    """One figure, then and now.

    ``change``: relative, of ``new`` to ``baseline``; ``worse_by`` the same with its sign turned so that more is worse,
    between ``worse_by_low`` and ``worse_by_high`` in 98 of 100 cases. ``is_judged``: whether ``verdict`` counts; if
    not, it is only for the reader. ``runs_needed``: of each side, to tell.
    """

    name: str
    unit: Unit
    baseline: float
    new: float
    change: float
    worse_by: float
    worse_by_low: float
    worse_by_high: float
    verdict: Verdict
    is_judged: bool
    runs_needed: PositiveInt | None = None


class Check(Record):
    """What ``autotune check`` found. ``differences``: of the machines, in words; where there are any, only ratios are
    judged. ``missing``: what one side does not tell."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    kind: Literal["autotune.check"] = "autotune.check"
    verdict: Verdict
    max_regression: PositiveFloat
    new_runs: PositiveInt
    baseline_runs: PositiveInt
    differences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...] = ()


class Change(Record):
    """How much worse a figure is, in logarithms; the standard error of that; the deviation of a single run."""

    worse_by: float
    error: NonNegativeFloat
    run_sigma: NonNegativeFloat


def parse_regression(text: str) -> float:
    """The share in ``"3%"`` or ``"0.03"``; raises UsageError."""
    try:
        share = float(parse_quantity(text, {"%": 1, "": 100}, "3%")) / 100
    except ValueError as error:
        raise UsageError(f"--max-regression: {error} (given: {text})") from None
    if not 0 < share < 1:
        raise UsageError(f"--max-regression: give more than 0 and less than 100%, such as 3% (given: {text})")
    return share


def check(new: Sequence[Report], baseline: Sequence[Report], max_regression: float) -> Check:
    """Compares runs of one training job. ``max_regression``: share by which a figure may be worse.

    Raises InputError where a report has no sweet spot, or the runs are not of one training job, or those of one side
    not of one machine.
    """
    differences = comparable(new, baseline)
    comparisons, missing = [], []
    for quantity in QUANTITIES:
        sides = [[quantity.figure(report, baseline[0]) for report in side] for side in (new, baseline)]
        mine, theirs = ([figure for figure in side if figure] for side in sides)
        if not mine or not theirs:
            missing.append(quantity.name)
            continue
        comparisons.append(compare(quantity, mine, theirs, max_regression, quantity.is_absolute != bool(differences)))
    verdicts = [one.verdict for one in comparisons if one.is_judged]
    return Check(
        verdict=next((one for one in ("regression", "unclear", "better") if one in verdicts), "ok"),
        max_regression=max_regression,
        new_runs=len(new),
        baseline_runs=len(baseline),
        differences=tuple(differences),
        comparisons=tuple(comparisons),
        missing=tuple(missing),
    )


def comparable(new: Sequence[Report], baseline: Sequence[Report]) -> list[str]:
    """What tells the machines of the two sides apart, in words."""
    for name, side in (("new report", new), ("baseline", baseline)):
        for report in side:
            if report.sweet_spot is None:
                raise InputError(f"the {name} is {report.status} and names no sweet spot; run autotune run to its end")
            if changes := changes_of_workload(baseline[0], report):
                raise InputError(f"the {name} is of another training job, so nothing compares: {', '.join(changes)}")
            if changes := changes_of_machine(side[0], report):
                raise InputError(f"every {name} must be of one machine; one is not: {', '.join(changes)}")
    return changes_of_machine(baseline[0], new[0])


def compare(
    quantity: Quantity, new: Sequence[Figure], baseline: Sequence[Figure], max_regression: float, is_judged: bool
) -> Comparison:
    """One figure of both sides, with the verdict."""
    found = change_between(quantity, new, baseline)
    sure = NormalDist().inv_cdf(SURE) * found.error
    verdict = judge(found, log1p(max_regression))
    middle = [exp(mean(log(one.value + quantity.offset) for one in side)) - quantity.offset for side in (new, baseline)]
    return Comparison(
        name=quantity.name,
        unit=quantity.unit,
        new=middle[0],
        baseline=middle[1],
        change=(middle[0] - middle[1]) / (middle[1] + quantity.offset),
        worse_by=exp(found.worse_by) - 1,
        worse_by_low=exp(found.worse_by - sure) - 1,
        worse_by_high=exp(found.worse_by + sure) - 1,
        verdict=verdict,
        is_judged=is_judged,
        runs_needed=runs_needed(found, log1p(max_regression)) if verdict == "unclear" else None,
    )


def change_between(quantity: Quantity, new: Sequence[Figure], baseline: Sequence[Figure]) -> Change:
    """How much worse the new side is, and how sure that is: what runs of one side differ by counts as much as it is
    known, and the noise that each run shows in itself as a prior."""
    logs = [[log(one.value + quantity.offset) for one in side] for side in (new, baseline)]
    squares = sum((one - mean(side)) ** 2 for side in logs for one in side)
    freedom = len(new) + len(baseline) - 2
    prior = mean(one.sigma**2 for one in (*new, *baseline))
    variance = (PRIOR_WEIGHT * prior + squares) / (PRIOR_WEIGHT + freedom)
    worse = mean(logs[0]) - mean(logs[1])
    return Change(
        worse_by=worse if quantity.better == "less" else -worse,
        error=(variance * (1 / len(new) + 1 / len(baseline))) ** 0.5,
        run_sigma=variance**0.5,
    )


def judge(found: Change, limit: float) -> Verdict:
    """The verdict on a change; ``limit`` in logarithms."""
    sure, clear = (NormalDist().inv_cdf(chance) * found.error for chance in (SURE, CLEAR))
    if found.worse_by > limit and found.worse_by > sure:
        return "regression"
    if found.worse_by < 0 and found.worse_by < -sure:
        return "better"
    return "ok" if found.worse_by + clear <= limit else "unclear"


def runs_needed(found: Change, limit: float) -> int:
    """Runs of each side with which a change of ``limit`` would be seen."""
    wanted = 2 * (NormalDist().inv_cdf(SURE) * found.run_sigma / limit) ** 2
    return min(MOST_RUNS, max(2, ceil(wanted)))
