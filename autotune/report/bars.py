"""Throughput and peak memory over m as bars, for a terminal; characters of ASCII where it knows no others."""

from rich.console import Console

from autotune.records.prediction import Basis
from autotune.records.report import CandidateReport, Report
from autotune.report.recommend import curve
from autotune.report.units import show_bytes, show_rate
from autotune.report.workload import samples

ROOM = 53  # columns that the words of a row take
LONGEST, SHORTEST = 40, 8  # columns of a bar


def print_bars(report: Report, console: Console) -> None:
    """Print one row for each m under the winner's schedule, and GPipe's where m is too small for that."""
    rows = under_one_schedule(report)
    width = max(SHORTEST, min(LONGEST, (console.width - ROOM) // 2))
    cell = "█" if (console.encoding or "").lower().startswith("utf") else "#"
    rates = [row.rate for row in rows]
    peaks = [row.peak or 0 for row in rows]
    winner = report.candidates[report.sweet_spot.candidate] if report.sweet_spot else None
    console.print(f"throughput ({samples(report.workload)}/s), and peak memory of the fullest rank:", highlight=False)
    for row, rate, peak in zip(rows, rates, peaks, strict=True):
        source = "over limit" if row.over_limit_bytes else "estimated" if row.measurement else source_text(row)
        line = f"m = {row.micro_batches:<4} {bar(rate, max(rates), width, cell)} {show_rate(rate):>8} {source:10}"
        if peak:
            line += f" {bar(peak, max(peaks), width, cell)} {show_bytes(peak)}"
        console.print(line, style="bold green" if row is winner else None, highlight=False, soft_wrap=True)


def source_text(row: CandidateReport) -> str:
    """Return that a candidate did not run, or that its times are of other micro-batch sizes."""
    return "extrapol." if row.prediction.basis is Basis.EXTRAPOLATED else "not run"


def under_one_schedule(report: Report) -> list[CandidateReport]:
    """Return the candidates under the winner's schedule, ascending in m; under the first one where there is no winner.

    Where m is too small for it, GPipe stands in. A winner that only stands in, m = 1 as a rule, has no more candidates
    under its own schedule: there they are those of the schedule that it stands in for.
    """
    pick = report.sweet_spot.candidate if report.sweet_spot else 0
    rows = report.candidates
    everyone = range(len(rows))
    found = curve(rows, pick, everyone)
    wider = [curve(rows, at, everyone) for at in everyone if rows[at].family.stand_in == rows[pick].family]
    found = max((one for one in wider if set(one) > set(found)), key=len, default=found)
    return [rows[index] for index in found]


def bar(value: float, most: float, width: int, cell: str) -> str:
    """Return a bar as long as ``value`` is of ``most``; at least one cell."""
    return (cell * max(1, round(width * value / most if most else 0))).ljust(width)
