"""Why not that m? The candidates with it against the sweet spot: throughput, where the time goes, memory."""

from autotune.errors import UsageError
from autotune.records.prediction import TimeSplit
from autotune.records.report import CandidateReport, Report
from autotune.report.paper.predicted_cells import basis_text, forecast_text
from autotune.report.recommend import is_undecided, undecided_text
from autotune.report.table import raw_text
from autotune.report.units import show_bytes, show_rate, show_rough, show_seconds, show_share
from autotune.report.workload import samples

SMALL = 0.005  # of the winner's time per sequence; less is not worth a word


def explain(report: Report, micro_batches: int) -> list[str]:
    """Return a few lines on every candidate with ``micro_batches``; raise UsageError where there is none."""
    rows = [row for row in report.candidates if row.micro_batches == micro_batches]
    if not rows:
        known = ", ".join(str(count) for count in sorted({row.micro_batches for row in report.candidates}))
        raise UsageError(
            f"--explain {micro_batches}: the run had no such candidate, only m = {known}; run again with"
            f" --micro-batches {micro_batches}"
        )
    if report.sweet_spot is None:
        return [f"{name(row)}: {outcome_text(row, report)}." for row in rows]
    return [line for row in rows for line in compare_with_pick(row, report)]


def compare_with_pick(row: CandidateReport, report: Report) -> list[str]:
    """Return one candidate against the sweet spot, as a few lines."""
    spot = report.sweet_spot
    assert spot is not None
    winner = report.candidates[spot.candidate]
    lines = [f"{name(row)}: {outcome_text(row, report)}."]
    if row is winner:
        said = (
            f"recommended; {undecided_text(report)}"
            if is_undecided(spot)
            else "the best prediction"
            if report.is_predicted
            else "the sweet spot"
        )
        return [*lines, f"{name(row)} is {said}, because {spot.reason}."]
    if any(row is report.candidates[index] for index in spot.undecided_with):
        lines.append(f"  It might be the better choice: {undecided_text(report)}.")
    gap = row.rate / winner.rate - 1
    source = "" if row.measurement or report.is_predicted else " (estimated, not run)"
    lines.append(
        f"  It makes {show_share(abs(gap))} {'more' if gap > 0 else 'less'} throughput than {name(winner)}{source}."
    )
    lines.append(f"  {time_text(report, row, winner)}")
    mine, theirs = row.peak, winner.peak
    if mine is not None and theirs is not None:
        less = "less" if mine <= theirs else "more"
        lines.append(f"  Its fullest rank needs {show_bytes(mine)}, {show_bytes(abs(theirs - mine))} {less}.")
    return lines


def time_text(report: Report, row: CandidateReport, winner: CandidateReport) -> str:
    """Return which parts of its step take longer and shorter than the winner's, per sequence, as predicted."""
    mine, best = per_sequence(row), per_sequence(winner)
    whole = sum(best.values())
    changes = sorted(((mine[part] - best[part], part) for part in mine), reverse=True)
    texts = [
        f"{show_seconds(abs(by))} {'more' if by > 0 else 'less'} {part}"
        for by, part in changes
        if abs(by) > SMALL * whole
    ]
    parts = ", ".join(texts) or "no part differs by much"
    spans = f"{show_seconds(sum(mine.values()))} instead of {show_seconds(whole)}"
    return f"Per sequence, as {forecast_text(report)}: {spans}: {parts}."


def per_sequence(row: CandidateReport) -> dict[str, float]:
    """Return the predicted seconds of each part of the step, per sequence."""
    split = row.prediction.time_split_s
    return {part: getattr(split, part) / row.sequences for part in TimeSplit.model_fields}


def outcome_text(row: CandidateReport, report: Report) -> str:
    """Return what became of it."""
    if row.failure:
        return f"it failed: {row.failure.message}"
    unit = f"{samples(report.workload)}/s"
    rate = f"{show_rate(row.rate)} {unit}"
    if row.measurement:
        early = ", stopped early" if row.measurement.pruned else ""
        over = f"; over the memory limit by {show_bytes(row.over_limit_bytes)}" if row.over_limit_bytes else ""
        return f"{rate}, {raw_text(row.measurement)}{early}{over}" + "".join(f"; {doubt}" for doubt in row.doubts)
    if report.is_predicted:
        misfit = "; does not fit" if row.prediction.fits is False or row.over_limit_bytes else ""
        return f"{show_rough(report.replicas * row.rate)} {unit}, {basis_text(row, report)}{misfit}"
    if row.excluded or row.over_limit_bytes:
        return f"not tried: {row.excluded or 'does not fit'}; {rate} estimated"
    return f"not tried: the search ended before ({report.search.stopped_because}); {rate} estimated"


def name(row: CandidateReport) -> str:
    """Return ``m = 8 under 1F1B``."""
    return f"m = {row.micro_batches} under {row.schedule_text}"
