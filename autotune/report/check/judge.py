"""Is a figure worse than the baseline's, beyond doubt and by more than is allowed?

A figure's change is the mean logarithm of the new runs less that of the baseline's. Each run adds its variance
``sigma**2``; where a side has several runs, what these differ by counts too. With the standard error that follows::

    regression   the figure is worse by more than --max-regression, and with SURE it is not chance
    ok           with CLEAR it is worse by less than --max-regression, if at all
    better       with SURE the figure has become better
    unclear      neither

The change is stated once, relative to the baseline: 31% less, 5% more. --max-regression is a share of the baseline too.
"""

from collections.abc import Sequence
from math import exp, log, log1p
from statistics import NormalDist, mean
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from autotune.errors import InputError, UsageError
from autotune.identity import changes_of_machine, changes_of_workload
from autotune.quantities import parse_quantity
from autotune.records.base import SCHEMA_VERSION, Record
from autotune.records.report import Report
from autotune.report.check.figures import QUANTITIES, Better, Figure, Quantity, Unit

SURE, CLEAR = 0.99, 0.95  # one-sided
PRIOR_WEIGHT = 4  # what a run says of its own noise, in differences between runs

Verdict = Literal["regression", "ok", "better", "unclear"]


class Comparison(Record):
    """One figure, then and now.

    ``change``: of ``new``, relative to ``baseline``; between ``change_low`` and ``change_high`` in 98 of 100 cases.
    ``is_judged``: False where ``verdict`` does not count and is only for the reader.
    """

    name: str
    unit: Unit
    baseline: float
    new: float
    change: float
    change_low: float
    change_high: float
    verdict: Verdict
    is_judged: bool


class Check(Record):
    """The result of ``autotune check``.

    ``differences``: a line for each of the machines; where there are any, only ratios are judged. ``missing``: what one
    side does not tell.
    """

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
    """The change of a figure, in logarithms, and its standard error."""

    by: float
    error: NonNegativeFloat


def parse_regression(text: str) -> float:
    """Return the share in ``"3%"`` or ``"0.03"``; raise UsageError."""
    try:
        share = float(parse_quantity(text, {"%": 1, "": 100}, "3%")) / 100
    except ValueError as error:
        raise UsageError(f"--max-regression: {error} (given: {text})") from None
    if not 0 < share < 1:
        raise UsageError(f"--max-regression: give more than 0 and less than 100%, such as 3% (given: {text})")
    return share


def check(new: Sequence[Report], baseline: Sequence[Report], max_regression: float) -> Check:
    """Compare runs of one training job. ``max_regression``: share by which a figure may be worse.

    Raise InputError where a report has no sweet spot, or the runs are not of one training job, or those of one side
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
    """Return a line for each difference between the machines of the two sides."""
    for name, side in (("new report", new), ("baseline", baseline)):
        for report in side:
            if report.sweet_spot is None:
                raise InputError(f"the {name} is {report.status} and names no sweet spot; run autotune run to its end")
            if report.is_predicted != baseline[0].is_predicted:
                raise InputError(
                    "one side was measured and the other only predicted, so nothing compares; give two reports of runs,"
                    " or two predictions"
                )
            if changes := changes_of_workload(baseline[0], report):
                raise InputError(f"the {name} is of another training job, so nothing compares: {', '.join(changes)}")
            if changes := changes_of_machine(side[0], report):
                raise InputError(f"every {name} must be of one machine; one is not: {', '.join(changes)}")
    return changes_of_machine(baseline[0], new[0])


def compare(
    quantity: Quantity, new: Sequence[Figure], baseline: Sequence[Figure], max_regression: float, is_judged: bool
) -> Comparison:
    """Return one figure of both sides, with the verdict."""
    found = change_between(quantity, new, baseline)
    sure = NormalDist().inv_cdf(SURE) * found.error
    middle = [exp(mean(log(one.value + quantity.offset) for one in side)) - quantity.offset for side in (new, baseline)]
    return Comparison(
        name=quantity.name,
        unit=quantity.unit,
        new=middle[0],
        baseline=middle[1],
        change=exp(found.by) - 1,
        change_low=exp(found.by - sure) - 1,
        change_high=exp(found.by + sure) - 1,
        verdict=judge(found, quantity.better, max_regression),
        is_judged=is_judged,
    )


def change_between(quantity: Quantity, new: Sequence[Figure], baseline: Sequence[Figure]) -> Change:
    """Return by how much the new side differs, and the standard error of that.

    What runs of one side differ by counts as much as it is known; the noise that each run shows in itself is a prior.
    """
    logs = [[log(one.value + quantity.offset) for one in side] for side in (new, baseline)]
    squares = sum((one - mean(side)) ** 2 for side in logs for one in side)
    freedom = len(new) + len(baseline) - 2
    prior = mean(one.sigma**2 for one in (*new, *baseline))
    variance = (PRIOR_WEIGHT * prior + squares) / (PRIOR_WEIGHT + freedom)
    return Change(
        by=mean(logs[0]) - mean(logs[1]),
        error=(variance * (1 / len(new) + 1 / len(baseline))) ** 0.5,
    )


def judge(found: Change, better: Better, max_regression: float) -> Verdict:
    """Return the verdict on a change; ``max_regression`` is a share of the baseline."""
    worse, limit = (found.by, log1p(max_regression)) if better == "less" else (-found.by, -log1p(-max_regression))
    sure, clear = (NormalDist().inv_cdf(chance) * found.error for chance in (SURE, CLEAR))
    if worse > limit and worse > sure:
        return "regression"
    if worse < 0 and worse < -sure:
        return "better"
    return "ok" if worse + clear <= limit else "unclear"
