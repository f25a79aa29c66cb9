"""Reading report.json, reports of older versions too."""

from pathlib import Path

from autotune.errors import InputError
from autotune.records.base import read_record
from autotune.records.report import PREDICTION, REPORT, Report
from autotune.records.verdict import Stop, StopReason, Verdict
from autotune.report.recommend import loses_to, pareto_front, recommend, under_limit

USUAL_TOLERANCE = 0.01


def read_report(path: Path) -> Report:
    """Read a report; raise InputError with path and field."""
    report = read_record(path, Report, REPORT, PREDICTION)
    try:
        return restated(report)
    except (ArithmeticError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: no sweet spot follows from the figures of its candidates: {reason}; run autotune run again"
        ) from None


def restated(report: Report) -> Report:
    """Return a report of an older version with its sweet spot, knee, ties and front made again from its table.

    Those versions held no estimates, and made the table from other figures than the rest. The pick stays. Its certainty
    stands as that version stated it, unless the table has a candidate that is faster by more than the tolerance.
    """
    spot = report.sweet_spot
    if spot is None or report.is_predicted or any(row.estimate for row in report.candidates):
        return report
    tolerance = report.search.tolerance or USUAL_TOLERANCE
    rows = [under_limit(row, report.memory_limit_bytes) for row in report.candidates]
    mine = rows[spot.candidate]
    rows = [row.model_copy(update={"loses_to": loses_to(row, mine) if row is not mine else None}) for row in rows]
    faster = [
        index
        for index, row in enumerate(rows)
        if row.measurement and row.may_win and mine.rate < row.rate * (1 - tolerance)
    ]
    verdict = Verdict(
        pick=spot.candidate,
        certainty=report.search.confidence if not faster else None,
        undecided_with=tuple(sorted(faster, key=lambda index: -rows[index].rate)),
        objective=report.search.objective,
        tolerance=tolerance,
        stop=report.search.stop or Stop(reason=StopReason.DECIDED),
    )
    search = report.search.model_copy(update={"pareto_front": pareto_front(rows)})
    made = recommend(rows, verdict, report.memory_limit_bytes)
    return report.model_copy(update={"candidates": tuple(rows), "sweet_spot": made, "search": search})
