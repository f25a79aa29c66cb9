"""Why not that m? The candidates with it against the sweet spot: throughput, where the time goes, memory."""

from autotune.errors import UsageError
from autotune.predict.record import TimeSplit
from autotune.report.record import CandidateReport, Report
from autotune.report.units import show_bytes, show_seconds

SMALL = 0.005  # of the winner's time per sequence; less is not worth a word


def explain(report: Report, micro_batches: int) -> list[str]:
    """A few lines on every candidate with so many micro-batches; raises UsageError where there is none."""
    rows = [row for row in report.candidates if row.micro_batches == micro_batches]
    if not rows:
        known = ", ".join(str(count) for count in sorted({row.micro_batches for row in report.candidates}))
        raise UsageError(
            f"--explain {micro_batches}: the run had no such candidate, only m = {known}; run again with"
            f" --micro-batches {micro_batches}"
        )
    if report.sweet_spot is None:
        return [f"{name(row)}: {fate(row)}." for row in rows]
    winner = report.candidates[report.sweet_spot.candidate]
    return [line for row in rows for line in against(row, winner)]


def against(row: CandidateReport, winner: CandidateReport) -> list[str]:
    """One candidate against the winner."""
    if row == winner:
        return [f"{name(row)} is the sweet spot."]
    lines = [f"{name(row)}: {fate(row)}."]
    gap = row.rate / winner.rate - 1
    source = "measured" if row.measurement and winner.measurement else "predicted"
    lines.append(
        f"  It makes {abs(gap):.1%} {'more' if gap > 0 else 'less'} throughput than {name(winner)} ({source})."
    )
    lines.append(f"  {time_words(row, winner)}")
    mine, theirs = row.peak, winner.peak
    if mine is not None and theirs is not None:
        less = "less" if mine <= theirs else "more"
        lines.append(f"  Its fullest rank needs {show_bytes(mine)}, {show_bytes(abs(theirs - mine))} {less}.")
    return lines


def time_words(row: CandidateReport, winner: CandidateReport) -> str:
    """What its step takes longer for, and shorter, per sequence; as predicted."""
    mine, best = per_sequence(row), per_sequence(winner)
    whole = sum(best.values())
    changes = sorted(((mine[part] - best[part], part) for part in mine), reverse=True)
    words = [
        f"{show_seconds(abs(by))} {'more' if by > 0 else 'less'} {part}"
        for by, part in changes
        if abs(by) > SMALL * whole
    ]
    told = ", ".join(words) or "no part differs by much"
    return f"Per sequence, as predicted: {show_seconds(sum(mine.values()))} instead of {show_seconds(whole)}: {told}."


def per_sequence(row: CandidateReport) -> dict[str, float]:
    """The predicted step by what it goes to, over its sequences."""
    split = row.prediction.time_split_s
    return {part: getattr(split, part) / row.sequences for part in TimeSplit.model_fields}


def fate(row: CandidateReport) -> str:
    """What became of it."""
    if row.failure:
        return f"it failed: {row.failure.message}"
    if row.measurement:
        return f"{row.rate:.1f} sequences/s, measured" + "".join(f"; {doubt}" for doubt in row.doubts)
    if row.excluded:
        return f"not tried, for {row.excluded}; {row.rate:.1f} sequences/s predicted"
    return f"not tried, for it could not win any more; {row.rate:.1f} sequences/s predicted"


def name(row: CandidateReport) -> str:
    """``m = 8 under 1F1B``."""
    return f"m = {row.micro_batches} under {row.schedule_words}"
