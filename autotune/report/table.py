"""The table of candidates and the sentence about the winner, for a terminal or a pipe."""

from enum import StrEnum
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.records.outcome import Measurement
from autotune.records.prediction import Basis
from autotune.records.report import CandidateReport, Report
from autotune.report.answer import conclusion, does_not_fit, headline, short_answer, short_conclusion
from autotune.report.paper.planned_layouts import layout_lines, layout_rows
from autotune.report.paper.predicted_cells import forecast_text, origin, predicted_cells
from autotune.report.recommend import is_undecided
from autotune.report.units import (
    counted,
    rate_decimals,
    show_bytes,
    show_rate,
    show_speed,
)
from autotune.report.workload import samples

NARROW, WIDE = 100, 150  # columns of a terminal
UNKNOWN = "-"
PREDICTED, FITTED = "predicted", "fitted"
"""What the cost model says: before anything ran; of a command, from the steps that ran."""
NOTICEABLE = 0.03  # relative; a machine whose speed differed by less is not worth a word
COLUMNS = ("m", "b", "schedule", PREDICTED, "step vs raw", "estimate", "bubble", "peak memory", "status")
GIVE_WAY = (
    "step vs raw",
    "MFU",
    "bubble",
    "sequences/s per device",
    "tokens/s per device",
    PREDICTED,
    FITTED,
    "90% interval",
)
"""Columns that are left out where a terminal has no room for all, the first first."""
STATUS_WIDTH = 20  # that of the status, which alone may be wrapped, before columns give way to it


class Mark(StrEnum):
    """The words with which the status of a marked row begins."""

    NONE = ""
    SWEET_SPOT = "sweet spot, "
    RECOMMENDED = "recommended but undecided, "
    RIVAL = "undecided, "
    BEST = "best prediction, "


def marks(report: Report) -> list[Mark]:
    """Return the mark of every candidate."""
    found = [Mark.NONE] * len(report.candidates)
    if report.sweet_spot is not None:
        for index in report.sweet_spot.undecided_with:
            found[index] = Mark.RIVAL
        sure = Mark.BEST if report.is_predicted else Mark.SWEET_SPOT
        found[report.sweet_spot.candidate] = Mark.RECOMMENDED if is_undecided(report.sweet_spot) else sure
    return found


def print_report(report: Report, console: Console, is_detailed: bool = True) -> None:
    """Print the answer in one line, the table, and the answer in a sentence with its reason.

    ``is_detailed``: with raw steps in the table, and below it the knee, the Pareto front, what was checked, the cost.
    """
    limit = f" (limit {show_bytes(report.memory_limit_bytes)} per rank)" if report.memory_limit_bytes else ""
    interval = ", estimate ± half its 90% interval" if any(row.estimate for row in report.candidates) else ""
    title = (
        f"{headline(report)}; throughput in {samples(report.workload)}/s, {forecast_text(report)}{interval}, peak of"
        f" the fullest rank{limit}"
    )
    if report.sweet_spot is not None:
        print_text(short_answer(report), console, style="bold" if is_undecided(report.sweet_spot) else "bold green")
    print_layouts(report, console)
    print_table(report, predicted_title(report, limit) if report.is_predicted else title, console, is_detailed)
    print_text(conclusion(report) if is_detailed else short_conclusion(report), console)


def print_text(text: str, console: Console, style: str | None = None) -> None:
    """Print sentences: in a pipe each stays one line, on a terminal it is wrapped between words."""
    console.print(text, soft_wrap=not console.is_terminal, highlight=False, markup=False, style=style)


def print_layouts(report: Report, console: Console) -> None:
    """Print the layouts of a number of devices, the quickest first, where a plan looked for them."""
    names, rows = layout_rows(report)
    if rows:
        table = Table(title="the best layouts", title_justify="left", title_style="", box=box.SIMPLE_HEAD)
        for name in names:
            table.add_column(name, justify="left" if name == "recompute" else "right", no_wrap=True)
        for at, row in enumerate(rows):
            table.add_row(*row, style=None if at else "bold green")
        console.print(table)
    for line in layout_lines(report):
        print_text(line, console)


def predicted_title(report: Report, limit: str) -> str:
    """Return what a table of predictions is of; ``limit``: of memory, in words."""
    is_estimated = any(row.prediction.basis is Basis.ESTIMATED for row in report.candidates)
    known = ", peak of the fullest rank" + limit if any(row.peak is not None for row in report.candidates) else ""
    return f"{headline(report)}; {'estimated' if is_estimated else 'predicted'}, {origin(report)}{known}"


def table_of(report: Report, is_detailed: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows; columns of which nothing is known are left out."""
    marked = marks(report)
    if report.is_predicted:
        shown = [predicted_cells(row, report, mark) for row, mark in zip(report.candidates, marked, strict=True)]
        names = list(dict.fromkeys(name for row in shown for name in row))
        rows = [[row.get(name, "") for name in names] for row in shown]
    else:
        marked_rows = zip(report.candidates, marked, strict=True)
        names = [FITTED if name == PREDICTED and report.is_fitted else name for name in COLUMNS]
        rows = [cells(row, mark, is_detailed) for row, mark in marked_rows]
    kept = [at for at in range(len(names)) if any(row[at] not in ("", UNKNOWN) for row in rows)]
    return [names[at] for at in kept], [[row[at] or UNKNOWN for at in kept] for row in rows]


def room_for(names: list[str], rows: list[list[str]], columns: int) -> list[int]:
    """Return the columns of a table that a terminal of so many ``columns`` has room for."""

    def width(at: int) -> int:
        widest = max(len(text) for text in (*names[at].replace("/s", " /s").split(), *(row[at] for row in rows)))
        return min(widest, STATUS_WIDTH) if names[at] == "status" else widest

    kept = list(range(len(names)))
    for name in GIVE_WAY:
        if 1 + sum(width(at) + 2 for at in kept) > columns and name in names:
            kept.remove(names.index(name))
    return kept


def print_table(report: Report, title: str, console: Console, is_detailed: bool = True) -> None:
    """Print one row per candidate, the winner and its rivals marked."""
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    narrow = console.width < (WIDE if report.is_predicted else NARROW)
    names, rows = table_of(report, is_detailed)
    kept = room_for(names, rows, console.width)
    for name in (names[at] for at in kept):
        justify: Literal["left", "right"] = "left" if name in ("schedule", "status") else "right"
        header = name.replace(" ", "\n").replace("/s", "\n/s") if narrow else name
        table.add_column(header, justify=justify, no_wrap=name != "status", min_width=11 if name == "status" else None)
    for row, mark in zip(rows, marks(report), strict=True):
        is_pick = mark in (Mark.SWEET_SPOT, Mark.RECOMMENDED, Mark.BEST)
        table.add_row(*(row[at] for at in kept), style="bold green" if is_pick else None)
    console.print(table)


def cells(row: CandidateReport, mark: Mark = Mark.NONE, is_detailed: bool = True) -> list[str]:
    """Return the cells of one candidate; a dash where nothing is known."""
    prediction = row.prediction
    size = f"{row.micro_batch_size}" + (f" (+{row.padding} pad)" if row.padding else "")
    return [
        str(row.micro_batches),
        size,
        row.schedule_text,
        show_rate(prediction.throughput_seq_s),
        f"{row.relative_error.step_time:+.1%}" if row.relative_error else "-",
        estimate_text(row),
        f"{prediction.bubble_share:.0%}",
        show_bytes(row.peak) if row.peak is not None else "-",
        status(row, mark, is_detailed),
    ]


def estimate_text(row: CandidateReport) -> str:
    """Return ``102.3 ±1.5``: the rate, and half its 90 % interval where that is known."""
    known = row.estimate
    if known is not None:
        half = (row.sequences / known.step_time_low_s - row.sequences / known.step_time_high_s) / 2
        return f"{show_rate(row.rate)} ±{half:.{rate_decimals(row.rate)}f}"
    return show_rate(row.rate) if row.measurement or row.last_prediction else "-"


def raw_text(measurement: Measurement) -> str:
    """Return ``9 raw steps 98.7 ±11.9``: the count, the median, and half the range of the middle half of the steps."""
    rates = sorted(measurement.throughput_seq_s * measurement.step_time_s / t for t in measurement.step_times_s)
    quarter = len(rates) // 4
    median = measurement.throughput_seq_s
    half = (rates[-1 - quarter] - rates[quarter]) / 2
    spread = f" ±{half:.{rate_decimals(median)}f}" if len(rates) > 1 else ""
    return f"{counted(len(rates), 'raw step')} {show_rate(median)}{spread}"


def status(row: CandidateReport, mark: Mark, is_detailed: bool = True) -> str:
    """Return what became of the candidate, in a few words; ``is_detailed``: with its raw steps."""
    if row.failure:
        where = f" on rank {row.failure.rank}" if row.failure.rank is not None else ""
        return f"{row.failure.kind.replace('_', ' ')}{where}"
    if row.measurement is None:
        return mark + (row.excluded or ("does not fit" if does_not_fit(row) else "not run"))
    text = f"{mark}{'stopped early' if row.measurement.pruned else 'confirmed'}"
    text += f", {raw_text(row.measurement)}" if is_detailed else ""
    text += " (earlier run)" if row.measurement.from_earlier_run else ""
    text += " (another controller)" if row.measurement.from_other_controller else ""
    if is_detailed and row.pace and abs(row.pace - 1) > NOTICEABLE:
        text += f", machine {show_speed(row.pace)} then"
    if row.over_limit_bytes is not None:
        text += f"; over the memory limit by {show_bytes(row.over_limit_bytes)}"
    elif row.excluded:
        text += f"; may not win: {row.excluded}"
    text += "".join(f"; DOUBTFUL: {doubt}" for doubt in row.doubts)
    return text + (f"; loses to {row.loses_to}" if row.loses_to and not mark else "")
