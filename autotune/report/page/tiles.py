"""The tiles at the head of a page: what is recommended and what it brings, one figure each."""

from dataclasses import dataclass

from autotune.records.report import CandidateReport, Report
from autotune.report.answer import present_text
from autotune.report.paper.predicted_cells import forecast_text
from autotune.report.recommend import is_undecided, undecided_text
from autotune.report.units import counted, show_bytes, show_certainty, show_rate, show_rough, show_share

PEAK = "peak memory of the fullest rank"


@dataclass(frozen=True)
class Tile:
    """A figure, its name, and what it must be read with. ``share``: how much of a bar below it is filled, if there is
    one."""

    name: str
    value: str
    note: str = ""
    share: float | None = None


def tiles(report: Report) -> list[Tile]:
    """Return the tiles of a report, of that which is known; none where nothing is recommended."""
    if report.sweet_spot is None:
        return []
    row = report.candidates[report.sweet_spot.candidate]
    found = [choice(row), speed(report, row), memory(report, row), bubble(report, row), certainty(report)]
    return [tile for tile in found if tile is not None]


def choice(row: CandidateReport) -> Tile:
    """Return m."""
    padding = f", {row.padding} of them padding" if row.padding else ""
    size = f"of {counted(row.micro_batch_size, 'sequence')} each{padding}"
    name = "micro-batch" if row.micro_batches == 1 else "micro-batches"
    return Tile(name, f"m = {row.micro_batches}", f"{size}, {row.schedule_text}")


def speed(report: Report, row: CandidateReport) -> Tile:
    """Return tokens per second, and sequences where nothing says how many tokens one has; against m = 1."""
    spot = report.sweet_spot
    assert spot is not None
    rate = report.replicas * row.rate
    show = show_rough if report.is_predicted else show_rate
    notes = []
    if spot.speedup_over_naive is not None and spot.baseline is not None and spot.baseline != spot.candidate:
        notes.append(f"{spot.speedup_over_naive:.2f}x m = {report.candidates[spot.baseline].micro_batches}")
    notes += [words] if (words := present_text(report).removeprefix(", ")) else []
    if report.workload.seq_len is None:
        return Tile("sequences/s", show(rate), ", ".join(notes))
    notes.insert(0, f"{show(rate)} sequences/s")
    return Tile("tokens/s", f"{float(show_rough(rate * report.workload.seq_len)):,.0f}", ", ".join(notes))


def memory(report: Report, row: CandidateReport) -> Tile | None:
    """Return the peak of the fullest rank, and what it is of the limit; None where it is not known."""
    if row.peak is None:
        return None
    is_measured = row.measurement is not None and row.measurement.peak_memory_bytes is not None
    source = "measured" if is_measured else "predicted"
    limit = report.memory_limit_bytes
    note = f"{show_share(row.peak / limit)} of {show_bytes(limit)}, {source}" if limit else source
    return Tile(PEAK, show_bytes(row.peak), note, min(1.0, row.peak / limit) if limit else None)


def bubble(report: Report, row: CandidateReport) -> Tile:
    """Return the share of the step that is idle because of the schedule, and all that is idle."""
    share, idle = row.prediction.bubble_share, row.prediction.bubble_fraction
    rest = f"; idle in all {show_share(idle, 0)}" if idle - share > 0.005 else ""
    return Tile(
        "bubble", show_share(share, 0), f"idle because of the schedule{rest}; {forecast_text(report)}", min(1.0, share)
    )


def certainty(report: Report) -> Tile | None:
    """Return how sure the pick is; None where that is not known."""
    spot, tolerance = report.sweet_spot, report.search.tolerance
    if spot is None or spot.certainty is None:
        return None
    if is_undecided(spot):
        note = undecided_text(report)
    else:
        note = f"that it is within {show_share(tolerance, 0)} of the best" if tolerance else "that it is the right one"
    return Tile("sure", show_certainty(spot.certainty), note, min(1.0, spot.certainty))
