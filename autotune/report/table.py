"""The table of candidates and the sentence about the winner, for a terminal or a pipe."""

from enum import StrEnum
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.records.outcome import Measurement
from autotune.records.prediction import Basis
from autotune.records.report import CandidateReport, Report, Source
from autotune.report.cost import cost_text
from autotune.report.hosts import host_lines
from autotune.report.planned_layouts import layout_lines, layout_rows
from autotune.report.predicted_cells import origin, predicted_cells, show_step
from autotune.report.recommend import is_undecided, undecided_text
from autotune.report.units import (
    counted,
    rate_decimals,
    show_bytes,
    show_certainty,
    show_rate,
    show_rough,
    show_seconds,
    show_share,
    show_speed,
)

NARROW, WIDE = 100, 150  # columns of a terminal
UNKNOWN = "-"
NOTICEABLE = 0.03  # relative; a machine whose speed differed by less is not worth a word
COLUMNS = ("m", "b", "schedule", "predicted", "estimate", "error", "bubble", "peak memory", "status")


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


def print_report(report: Report, console: Console) -> None:
    """Print the table, how the figures came about, and the sweet spot in one sentence."""
    limit = f" (limit {show_bytes(report.memory_limit_bytes)} per rank)" if report.memory_limit_bytes else ""
    interval = ", estimate ± half its 90% interval" if any(row.estimate for row in report.candidates) else ""
    title = f"{headline(report)}; throughput in sequences/s{interval}, peak of the fullest rank{limit}"
    print_layouts(report, console)
    print_table(report, predicted_title(report, limit) if report.is_predicted else title, console)
    # In a pipe a sentence stays one line; on a terminal it is wrapped between words.
    console.print(conclusion(report), soft_wrap=not console.is_terminal, highlight=False, markup=False)


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
        console.print(line, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def predicted_title(report: Report, limit: str) -> str:
    """Return what a table of predictions is of; ``limit``: of memory, in words."""
    is_estimated = any(row.prediction.basis is Basis.ESTIMATED for row in report.candidates)
    known = ", peak of the fullest rank" + limit if any(row.peak is not None for row in report.candidates) else ""
    return f"{headline(report)}; {'estimated' if is_estimated else 'predicted'}, {origin(report)}{known}"


def table_of(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows; columns of which nothing is known are left out."""
    marked = marks(report)
    if report.is_predicted:
        shown = [predicted_cells(row, report, mark) for row, mark in zip(report.candidates, marked, strict=True)]
        names = list(dict.fromkeys(name for row in shown for name in row))
        rows = [[row.get(name, "") for name in names] for row in shown]
    else:
        names, rows = list(COLUMNS), [cells(row, mark) for row, mark in zip(report.candidates, marked, strict=True)]
    kept = [at for at in range(len(names)) if any(row[at] not in ("", UNKNOWN) for row in rows)]
    return [names[at] for at in kept], [[row[at] or UNKNOWN for at in kept] for row in rows]


def print_table(report: Report, title: str, console: Console) -> None:
    """Print one row per candidate, the winner and its rivals marked."""
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    narrow = console.width < (WIDE if report.is_predicted else NARROW)
    names, rows = table_of(report)
    for name in names:
        justify: Literal["left", "right"] = "left" if name in ("schedule", "status") else "right"
        header = name.replace(" ", "\n").replace("/s", "\n/s") if narrow else name
        table.add_column(header, justify=justify, no_wrap=name != "status", min_width=11 if name == "status" else None)
    for row, mark in zip(rows, marks(report), strict=True):
        is_pick = mark in (Mark.SWEET_SPOT, Mark.RECOMMENDED, Mark.BEST)
        table.add_row(*row, style="bold green" if is_pick else None)
    console.print(table)


def cells(row: CandidateReport, mark: Mark = Mark.NONE) -> list[str]:
    """Return the cells of one candidate; a dash where nothing is known."""
    prediction = row.prediction
    size = f"{row.micro_batch_size}" + (f" (+{row.padding} pad)" if row.padding else "")
    return [
        str(row.micro_batches),
        size,
        row.schedule_text,
        show_rate(prediction.throughput_seq_s),
        estimate_text(row),
        f"{row.relative_error.step_time:+.1%}" if row.relative_error else "-",
        f"{prediction.bubble_fraction:.0%}",
        show_bytes(row.peak) if row.peak is not None else "-",
        status(row, mark),
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


def status(row: CandidateReport, mark: Mark) -> str:
    """Return what became of the candidate, in a few words."""
    if row.failure:
        where = f" on rank {row.failure.rank}" if row.failure.rank is not None else ""
        return f"{row.failure.kind.replace('_', ' ')}{where}"
    if row.measurement is None:
        return mark + (row.excluded or ("does not fit" if does_not_fit(row) else "predicted"))
    text = f"{mark}{'stopped early' if row.measurement.pruned else 'confirmed'}, {raw_text(row.measurement)}"
    text += " (earlier run)" if row.measurement.from_earlier_run else ""
    text += " (another controller)" if row.measurement.from_other_controller else ""
    text += f", machine {show_speed(row.pace)} then" if row.pace and abs(row.pace - 1) > NOTICEABLE else ""
    if row.over_limit_bytes is not None:
        text += f"; over the memory limit by {show_bytes(row.over_limit_bytes)}"
    elif row.excluded:
        text += f"; may not win: {row.excluded}"
    text += "".join(f"; DOUBTFUL: {doubt}" for doubt in row.doubts)
    return text + (f"; loses to {row.loses_to}" if row.loses_to and not mark else "")


def does_not_fit(row: CandidateReport) -> bool:
    """Return True where a candidate that did not run is predicted not to fit."""
    return row.prediction.fits is False or row.over_limit_bytes is not None


def headline(report: Report) -> str:
    """Return what was tuned, on what."""
    work = report.workload
    layers = f"{work.layers} layers, " if work.layers else ""
    stages = f"{layers}{work.stages} stages, batch {work.batch}"
    if report.is_predicted and report.environment.device is None:
        return stages
    return f"{stages} on {report.environment.device}"


def conclusion(report: Report) -> str:
    """Return the sweet spot in one sentence, the ties, the knee, the Pareto front, why the search stopped."""
    if report.is_predicted:
        return predicted_conclusion(report)
    if report.sweet_spot is None:
        return f"No sweet spot: {report.search.stopped_because}."
    search = report.search
    source = "; the profile is from an earlier run" if report.profile_from_earlier_run else ""
    others = "other controllers" if search.controller else "earlier runs"
    lines = (
        answer(report),
        *doubt_lines(report),
        *report.sweet_spot.ties,
        *knee_lines(report),
        *pareto_lines(report),
        *correctness_lines(report),
        *host_lines(report.profile),
        f"Stopped after {counted(search.trials, 'trial')} ({search.earlier_trials} more from {others}) and"
        f" {show_seconds(search.wall_s)}: {search.stopped_because}{source}.",
        *certainty_lines(report),
    )
    return "\n".join(lines) + cost_text(report)


def predicted_conclusion(report: Report) -> str:
    """Return the best prediction and what it rests on."""
    if report.sweet_spot is None:
        why = "no candidate fits in the memory limit" if report.status == "infeasible" else "none was timed at its b"
        return f"No best prediction: {why}."
    lines = (
        predicted_answer(report),
        *report.sweet_spot.ties,
        *knee_lines(report),
        *pareto_lines(report),
        f"{origin(report).capitalize()}. autotune run confirms a prediction by real runs.",
        *certainty_lines(report),
    )
    return "\n".join(lines)


def predicted_answer(report: Report) -> str:
    """Return the best prediction, its step, the speed-up, how sure that is where it is not, and the reason."""
    spot = report.sweet_spot
    assert spot is not None
    row = report.candidates[spot.candidate]
    one = row.prediction
    doubt = f"; {undecided_text(report)} ({show_certainty(spot.certainty or 0.0)} sure)" if is_undecided(spot) else ""
    return (
        f"Best prediction: m = {counted(spot.micro_batches, 'micro-batch', 'es')} of {spot.micro_batch_size} under"
        f" {row.schedule_text}, {show_rough(report.replicas * spot.throughput_seq_s)} sequences/s, a step of"
        f" {show_step(one.step_time_s)} ({show_step(one.step_time_low_s)} to {show_step(one.step_time_high_s)})"
        f"{speedup_text(report)}, because {spot.reason}{doubt}."
    )


def answer(report: Report) -> str:
    """Return the sweet spot, its throughput, the speed-up, how sure that is where it is not, and the reason."""
    spot = report.sweet_spot
    assert spot is not None
    row = report.candidates[spot.candidate]
    pick = (
        f"m = {counted(spot.micro_batches, 'micro-batch', 'es')} of {spot.micro_batch_size} under"
        f" {row.schedule_text}, {show_rate(spot.throughput_seq_s)} sequences/s{speedup_text(report)}"
    )
    if not is_undecided(spot):
        return f"Sweet spot: {pick}, because {spot.reason}."
    sure = f" ({show_certainty(spot.certainty)} sure)" if spot.certainty is not None else ""
    return f"Sweet spot: {undecided_text(report)}{sure}; {pick}, is recommended because {spot.reason}."


def speedup_text(report: Report) -> str:
    """Return ``, 1.29x the naive m = 1``; where that did not run, what the speed-up is against, and why."""
    spot = report.sweet_spot
    if spot is None or spot.speedup_over_naive is None:
        return ""
    if spot.baseline == spot.candidate:
        return ", the naive m = 1 itself"
    times = f", {spot.speedup_over_naive:.2f}x"
    against = report.candidates[spot.baseline].micro_batches if spot.baseline is not None else 1
    if against == 1:
        return f"{times} the naive m = 1"
    if report.is_predicted:
        return f"{times} m = {against}"
    return f"{times} m = {against}, the smallest that ran ({why_no_naive(report)})"


def why_no_naive(report: Report) -> str:
    """Return why m = 1 is not what the speed-up is stated against."""
    naive = [row for row in report.candidates if row.micro_batches == 1]
    if not naive:
        return "m = 1 was no candidate"
    if any(row.failure for row in naive):
        return "m = 1 failed"
    return "m = 1 does not fit" if all(does_not_fit(row) for row in naive) else "m = 1 did not run"


def doubt_lines(report: Report) -> list[str]:
    """Return what must be settled before the sweet spot is used."""
    doubts = report.candidates[report.sweet_spot.candidate].doubts if report.sweet_spot else ()
    return [f"Do not use it before its doubts are settled: {', '.join(doubts)}."] if doubts else []


def correctness_lines(report: Report) -> list[str]:
    """Return ``Checked: loss and gradient norm of the first step agree within 2e-07 …``, or what is wrong."""
    found = report.soundness
    if found is None:
        return []
    if found.findings:
        return [f"Doubtful: {finding}." for finding in found.findings]
    texts = []
    if found.loss_difference is not None and found.gradient_difference is not None:
        most = max(found.loss_difference, found.gradient_difference)
        pairs = f"{found.compared} comparison{'s' if found.compared > 1 else ''}"
        texts.append(f"loss and gradient norm of the first step agree within {most:.0e} ({pairs})")
    if found.growth_bytes is not None:
        texts.append("no step leaves memory behind")
    if found.peak_slope is not None:
        texts.append("the peak under 1F1B does not grow with m")
    if found.not_compared is not None:
        texts.append(f"not compared: {found.not_compared}")
    return [f"Checked: {'; '.join(texts)}."] if texts else []


def knee_lines(report: Report) -> list[str]:
    """Return ``Knee: m = 8 is the smallest m within 1% of the best under 1F1B; m = 4 loses 6.2%.``"""
    spot = report.sweet_spot
    if spot is None or spot.knee is None:
        return []
    sides = [
        f"m = {side.micro_batches} {loss_text(side.loss)}{predicted(side.source)}"
        for side in (spot.knee.fewer, spot.knee.more)
        if side is not None
    ]
    at, under = spot.knee.at, report.candidates[spot.candidate].schedule_text
    text = f"Knee: m = {at.micro_batches} is the smallest m within 1% of the best under {under}{predicted(at.source)}"
    return ["; ".join([text, ", ".join(sides)] if sides else [text]) + "."]


def loss_text(loss: float) -> str:
    """Return ``loses 6.2%``, or ``is the best``."""
    return f"loses {show_share(loss)}" if loss else "is the best"


def predicted(source: Source) -> str:
    """Return the note on a figure of a candidate that did not run."""
    return "" if source == "measured" else " (predicted)"


def pareto_lines(report: Report) -> list[str]:
    """Return throughput against memory, the leanest first; nothing where one candidate is best in both."""
    points = report.search.pareto_front
    if len(points) < 2:
        return []
    shown = [
        f"{report.candidates[point.candidate].name} {show_rate(point.throughput_seq_s)}/s"
        f" {show_bytes(point.peak_memory_bytes)}{predicted(point.source)}"
        for point in points
    ]
    return [f"Less memory for less throughput: {', '.join(shown)}."]


def certainty_lines(report: Report) -> list[str]:
    """Return how sure the pick is; of a report without estimates, what its run stated of it."""
    spot, tolerance = report.sweet_spot, report.search.tolerance
    if spot is None or spot.certainty is None or tolerance is None:
        return []
    is_lean = report.search.objective == "memory"
    place = f"{'the leanest of those ' if is_lean else ''}within {show_share(tolerance, 0)} of the best"
    claim = f"he pick is {place} with a probability of {show_certainty(spot.certainty)}."
    has_estimates = report.is_predicted or any(row.estimate for row in report.candidates)
    return [f"T{claim}" if has_estimates else f"As that run stated it, t{claim}"]
