"""The figures that ``check`` compares, each drawn from one report together with its noise."""

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot
from statistics import median
from typing import Literal, NamedTuple

from autotune.report.record import CandidateReport, Report
from autotune.search.noise import step_noise

RUN_NOISE = 0.01  # relative standard deviation of a figure between runs on a machine that shows none while it profiles

Better = Literal["more", "less"]
Unit = Literal["sequences/s", "bytes", "share", "times"]


class Figure(NamedTuple):
    """A figure of one run; ``sigma``: by how much, relative to it, runs of the same work differ."""

    value: float
    sigma: float = 0.0


@dataclass(frozen=True)
class Quantity:
    """What is compared. ``figure(report, baseline)``: its value in ``report``, of the candidate that won in
    ``baseline`` where it depends on the candidate; None where the report does not tell. ``offset`` is added before
    logarithms are taken, for a quantity that may be 0."""

    name: str
    unit: Unit
    better: Better
    is_absolute: bool
    figure: Callable[[Report, Report], Figure | None]
    offset: float = 0.0


def winner(report: Report) -> CandidateReport:
    """The row of the sweet spot."""
    assert report.sweet_spot is not None, "a report without a sweet spot is refused"
    return report.candidates[report.sweet_spot.candidate]


def counterpart(report: Report, baseline: Report) -> CandidateReport | None:
    """The candidate that won in ``baseline``, as ``report`` has it."""

    def name(row: CandidateReport) -> tuple[object, ...]:
        return (row.micro_batches, row.micro_batch_size, row.schedule, row.virtual_stages)

    return next((row for row in report.candidates if name(row) == name(winner(baseline))), None)


def run_noise(report: Report) -> float:
    """Relative standard deviation of the same work between moments, as profiling found it, and no less than usual."""
    return max(RUN_NOISE, *(profile.drift for profile in (report.profile, *report.virtual_profiles)))


def timing_noise(report: Report, *rows: CandidateReport) -> float:
    """Relative standard deviation of a ratio of step times of these candidates: their samples' and the run's own."""
    series = [row.measurement.step_times_s for row in report.candidates if row.measurement]
    step = step_noise(series).sigma
    steps = [step / len(row.measurement.step_times_s) ** 0.5 for row in rows if row.measurement]
    return hypot(run_noise(report), *steps)


def throughput(report: Report, _: Report) -> Figure | None:
    """Of the sweet spot: what a launcher gets, whichever candidate it is."""
    row = winner(report)
    return Figure(row.measurement.throughput_seq_s, timing_noise(report, row)) if row.measurement else None


def peak_memory(report: Report, baseline: Report) -> Figure | None:
    """Bytes of the fullest rank: an allocator repeats itself exactly. Measured where both reports have that, else
    predicted in both."""
    rows = [counterpart(one, baseline) for one in (report, baseline)]
    if None in rows:
        return None
    measured = [row.measurement.peak_memory_bytes for row in rows if row and row.measurement]
    predicted = [row.prediction.peak_memory_bytes for row in rows if row]
    mine, theirs = measured if len(measured) == 2 and all(measured) else predicted
    return Figure(float(max(mine))) if mine and theirs else None


def efficiency(report: Report, _: Report) -> Figure | None:
    """Share of the measured step that the mean rank computes at its best micro-batch size."""
    row = winner(report)
    if row.measurement is None or not row.prediction.time_split_s.compute:
        return None
    return Figure(row.prediction.time_split_s.compute / row.measurement.step_time_s, timing_noise(report, row))


def speedup(report: Report, _: Report) -> Figure | None:
    """Throughput of the sweet spot over that of m = 1."""
    naive = [row for row in report.candidates if row.micro_batches == 1 and row.measurement]
    found = report.sweet_spot.speedup_over_naive if report.sweet_spot else None
    return Figure(found, timing_noise(report, winner(report), *naive[:1])) if found else None


def prediction_error(report: Report, _: Report) -> Figure | None:
    """Median over the measured candidates of how far the predicted step time was off."""
    errors = [abs(row.relative_error.step_time) for row in report.candidates if row.relative_error]
    return Figure(median(errors), run_noise(report)) if errors else None


def activation_bytes(report: Report, baseline: Report) -> Figure | None:
    """Bytes of activations that one micro-batch holds on the stage where it holds most."""
    row = counterpart(report, baseline)
    profiles = (report.profile, *report.virtual_profiles)
    of_cut = [one for one in profiles if row and one.virtual_stages == row.virtual_stages]
    if row is None or not of_cut or not all(stage.memory for stage in of_cut[0].stages):
        return None
    held = [stage.bytes(row.micro_batch_size, lambda part: part.activation_bytes) for stage in of_cut[0].stages]
    return Figure(max(held)) if max(held) else None


QUANTITIES = (
    Quantity("throughput", "sequences/s", "more", True, throughput),
    Quantity("peak memory of the fullest rank", "bytes", "less", True, peak_memory),
    Quantity("pipeline efficiency", "share", "more", False, efficiency),
    Quantity("speed-up over m = 1", "times", "more", False, speedup),
    Quantity("prediction error, median", "share", "less", False, prediction_error, offset=1.0),
    Quantity("activations of one micro-batch", "bytes", "less", False, activation_bytes),
)
