"""The table of candidates and the sentence about the winner, for a terminal or a pipe."""

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.outcome import Measurement
from autotune.predict.record import Candidate, Prediction
from autotune.report.cost import cost_words
from autotune.report.hosts import host_words
from autotune.report.record import CandidateReport, Report, candidate_report
from autotune.report.units import show_bytes, show_seconds

NARROW = 100  # columns of a terminal
COLUMNS = ("m", "b", "schedule", "predicted", "measured", "error", "bubble", "peak memory", "status")


def print_report(report: Report, console: Console) -> None:
    """Prints the table, how the figures came about, and the sweet spot in one sentence."""
    winner = report.sweet_spot.candidate if report.sweet_spot else None
    limit = f" (limit {show_bytes(report.memory_limit_bytes)} per rank)" if report.memory_limit_bytes else ""
    rows = report.candidates
    print_table(
        rows, winner, f"{headline(report)}; throughput in sequences/s, peak of the fullest rank{limit}", console
    )
    # In a pipe a sentence stays one line; on a terminal it is wrapped between words.
    console.print(conclusion(report), soft_wrap=not console.is_terminal, highlight=False, markup=False)


def print_predictions(pairs: Sequence[tuple[Candidate, Prediction]], console: Console) -> None:
    """Prints the table of candidates that were only predicted."""
    rows = [candidate_report(candidate, prediction, None, None) for candidate, prediction in pairs]
    print_table(rows, None, "predicted throughput in sequences/s, peak of the fullest rank", console)
    best = max(rows, key=lambda row: row.prediction.throughput_seq_s if row.prediction.fits is not False else 0.0)
    if best.prediction.fits is False:
        console.print("No candidate fits in the memory limit.")
        return
    console.print(
        f"Best prediction: m = {best.micro_batches} micro-batches of {best.micro_batch_size} under {best.schedule}, "
        f"{best.prediction.throughput_seq_s:.1f} sequences/s. autotune run confirms it by real runs.",
        soft_wrap=not console.is_terminal,
    )


def print_table(rows: Sequence[CandidateReport], winner: int | None, title: str, console: Console) -> None:
    """One row per candidate, the winner marked."""
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    narrow = console.width < NARROW
    for name in COLUMNS:
        justify: Literal["left", "right"] = "left" if name in ("schedule", "status") else "right"
        header = name.replace(" ", "\n") if narrow else name
        table.add_column(header, justify=justify, no_wrap=name != "status", min_width=11 if name == "status" else None)
    for index, row in enumerate(rows):
        table.add_row(*cells(row, index == winner), style="bold green" if index == winner else None)
    console.print(table)


def cells(row: CandidateReport, is_winner: bool) -> list[str]:
    """The cells of one candidate; a dash where nothing was measured."""
    prediction = row.prediction
    size = f"{row.micro_batch_size}" + (f" (+{row.padding} pad)" if row.padding else "")
    return [
        str(row.micro_batches),
        size,
        row.schedule_words,
        f"{prediction.throughput_seq_s:.1f}",
        throughput(row.measurement) if row.measurement else "-",
        f"{row.relative_error.step_time:+.1%}" if row.relative_error else "-",
        f"{prediction.bubble_fraction:.0%}",
        show_bytes(row.peak) if row.peak is not None else "-",
        status(row, is_winner),
    ]


def throughput(measurement: Measurement) -> str:
    """``102.3 ±1.5``: the median, and half the range of the middle half of the steps."""
    rates = sorted(measurement.throughput_seq_s * measurement.step_time_s / t for t in measurement.step_times_s)
    quarter = len(rates) // 4
    return f"{measurement.throughput_seq_s:.1f} ±{(rates[-1 - quarter] - rates[quarter]) / 2:.1f}"


def status(row: CandidateReport, is_winner: bool) -> str:
    """What became of the candidate, in a few words."""
    if row.failure:
        where = f" on rank {row.failure.rank}" if row.failure.rank is not None else ""
        return f"{row.failure.kind.replace('_', ' ')}{where}"
    if row.measurement is None:
        return row.excluded or ("does not fit" if row.prediction.fits is False else "predicted")
    steps = len(row.measurement.step_times_s)
    words = "sweet spot, " if is_winner else ""
    counted = f"{steps} step{'' if steps == 1 else 's'}"
    words += f"pruned after {counted}" if row.measurement.pruned else f"confirmed, {counted}"
    words += " (earlier run)" if row.measurement.from_earlier_run else ""
    words += " (another controller)" if row.measurement.from_other_controller else ""
    words += f", machine {row.pace:.2f}x slower then" if row.pace and abs(row.pace - 1) > 0.005 else ""
    words += "".join(f"; DOUBTFUL: {doubt}" for doubt in row.doubts)
    return words + (f"; loses to {row.loses_to}" if row.loses_to else "")


def headline(report: Report) -> str:
    """What was tuned, on what."""
    work = report.workload
    layers = f"{work.layers} layers, " if work.layers else ""
    return f"{layers}{work.stages} stages, batch {work.batch} on {report.environment.device}"


def conclusion(report: Report) -> str:
    """The sweet spot in one sentence, its reason; the knee, the ties, the Pareto front; why the search stopped."""
    if report.sweet_spot is None:
        return f"No sweet spot: {report.search.stopped_because}."
    spot = report.sweet_spot
    speedup = f", {spot.speedup_over_naive:.2f}x the naive m = 1" if spot.speedup_over_naive else ""
    kind = "measured" if spot.confirmed else "predicted, not confirmed by a run"
    source = "; the profile is from an earlier run" if report.profile_from_earlier_run else ""
    lines = (
        *doubt_words(report),
        *spot.ties,
        *knee_words(report),
        *pareto_words(report),
        *soundness_words(report),
        *host_words(report.profile),
    )
    around = "".join(f"{line}\n" for line in lines)
    return (
        f"Sweet spot: m = {spot.micro_batches} micro-batches of {spot.micro_batch_size} under {spot.schedule}, "
        f"{spot.throughput_seq_s:.1f} sequences/s {kind}{speedup}, because {spot.reason}.\n"
        f"{around}"
        f"Stopped after {report.search.trials} trials ({report.search.earlier_trials} more from "
        f"{'other controllers' if report.search.controller else 'earlier runs'}) and "
        f"{show_seconds(report.search.wall_s)}: {report.search.stopped_because}{source}."
        f"{sureness(report)}{cost_words(report)}"
    )


def doubt_words(report: Report) -> list[str]:
    """What must be settled before the sweet spot is used."""
    doubts = report.candidates[report.sweet_spot.candidate].doubts if report.sweet_spot else ()
    return [f"Do not use it before its doubts are settled: {', '.join(doubts)}."] if doubts else []


def soundness_words(report: Report) -> list[str]:
    """``Checked: loss and gradient norm of the first step agree within 2e-07 (4 comparisons); …``, or what is wrong."""
    found = report.soundness
    if found is None:
        return []
    if found.findings:
        return [f"Doubtful: {finding}." for finding in found.findings]
    words = []
    if found.loss_difference is not None and found.gradient_difference is not None:
        most = max(found.loss_difference, found.gradient_difference)
        pairs = f"{found.compared} comparison{'s' if found.compared > 1 else ''}"
        words.append(f"loss and gradient norm of the first step agree within {most:.0e} ({pairs})")
    if found.growth_bytes is not None:
        words.append("no step leaves memory behind")
    if found.peak_slope is not None:
        words.append("the peak under 1F1B does not grow with m")
    if found.not_compared is not None:
        words.append(f"not compared: {found.not_compared}")
    return [f"Checked: {'; '.join(words)}."] if words else []


def knee_words(report: Report) -> list[str]:
    """``Knee: m = 8 is the smallest m within 1% of the best under 1F1B; m = 4 loses 6.2% (measured), …``."""
    spot = report.sweet_spot
    if spot is None or spot.knee is None:
        return []
    sides = [
        f"m = {side.micro_batches} {'loses' if side.loss >= 0 else 'gains'} {abs(side.loss):.1%} ({side.source})"
        for side in (spot.knee.fewer, spot.knee.more)
        if side is not None
    ]
    at = spot.knee.at
    words = f"Knee: m = {at.micro_batches} is the smallest m within 1% of the best under {spot.schedule} ({at.source})"
    return ["; ".join([words, ", ".join(sides)] if sides else [words]) + "."]


def pareto_words(report: Report) -> list[str]:
    """Throughput against memory, the leanest first; nothing where one candidate is best in both."""
    points = report.search.pareto_front
    if len(points) < 2:
        return []
    shown = [
        f"m = {row.micro_batches} {row.schedule} {point.throughput_seq_s:.1f}/s {show_bytes(point.peak_memory_bytes)}"
        f"{'' if point.source == 'measured' else ' (predicted)'}"
        for point in points
        for row in [report.candidates[point.candidate]]
    ]
    return [f"Less memory for less throughput: {', '.join(shown)}."]


def sureness(report: Report) -> str:
    """How sure the pick is."""
    found = report.search
    if found.confidence is None or found.tolerance is None:
        return ""
    final = f"; {found.final}" if found.final else ""
    return (
        f"\nThe pick is within {found.tolerance:.0%} of the best with a probability of {found.confidence:.0%}{final}."
    )
