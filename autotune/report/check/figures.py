"""The figures that ``check`` compares, each drawn from one report together with its noise."""

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot, log, sqrt
from statistics import median, stdev
from typing import Literal, NamedTuple

from autotune.records.profile import profile_of
from autotune.records.report import CandidateReport, Report

RUN_NOISE = 0.01  # relative standard deviation of a figure between runs on a machine that shows none while it profiles
NINETY = 1.645  # standard deviations from the middle of a 90 % interval to its ends
UNSTEADY = 0.02  # relative; a machine that drifts by more within a run drifts between runs too

Better = Literal["more", "less"]
Unit = Literal["sequences/s", "bytes", "share", "times"]


class Figure(NamedTuple):
    """A figure of one run; ``sigma``: the relative standard deviation between runs of the same work."""

    value: float
    sigma: float = 0.0


@dataclass(frozen=True)
class Quantity:
    """A quantity that is compared. ``figure(report, baseline)``: its value in ``report``, of the candidate that won in
    ``baseline`` where it depends on the candidate; None where the report does not tell. ``offset`` is added before
    logarithms are taken, for a quantity that may be 0."""

    name: str
    unit: Unit
    better: Better
    is_absolute: bool
    figure: Callable[[Report, Report], Figure | None]
    offset: float = 0.0


def winner(report: Report) -> CandidateReport:
    """Return the row of the sweet spot."""
    assert report.sweet_spot is not None, "a report without a sweet spot is refused"
    return report.candidates[report.sweet_spot.candidate]


def counterpart(report: Report, baseline: Report) -> CandidateReport | None:
    """Return the candidate that won in ``baseline``, as ``report`` has it."""

    def name(row: CandidateReport) -> tuple[object, ...]:
        return (row.micro_batches, row.micro_batch_size, row.family)

    return next((row for row in report.candidates if name(row) == name(winner(baseline))), None)


def run_noise(report: Report) -> float:
    """Return the relative standard deviation of the same work between moments of the run: of its profile, of the
    changes of speed that the search found, of the candidates' own; no less than is usual between runs."""
    profiles = (report.profile, *report.virtual_profiles)
    apart = max((run.apart for profile in profiles for run in profile.calibrations), default=1.0)
    ratios = [1.0, apart, report.search.drift.ratio if report.search.drift else 1.0]
    paces = [row.pace for row in report.candidates if row.pace is not None]
    ratios.append(max(paces) / min(paces) if paces else 1.0)
    return max(RUN_NOISE, *(profile.drift for profile in profiles), *(log(ratio) / 2 for ratio in ratios))


def machine_shift(report: Report, baseline: Report) -> float:
    """Return by how much the machine's own speed differs between two runs, as far as that may be drift: the median
    over stages and sizes of how many times longer the profiled forwards took, in logarithms.

    Where neither run has shown drift in itself the difference is not the machine's, and counts in full: 0.
    """
    if report.profile_from_earlier_run or max(run_noise(report), run_noise(baseline)) <= UNSTEADY:
        return 0.0
    gaps = []
    for mine, theirs in zip(report.profile.stages, baseline.profile.stages, strict=False):
        before = {row.micro_batch_size: row.t_f for row in theirs.time_s}
        gaps += [
            log(row.t_f / before[row.micro_batch_size])
            for row in mine.time_s
            if row.t_f > 0 and before.get(row.micro_batch_size, 0.0) > 0
        ]
    return abs(median(gaps)) if gaps else 0.0


def estimate_sigma(row: CandidateReport) -> float:
    """Return the relative standard deviation of a candidate's rate: of its estimate, or else of its steps' median."""
    if row.estimate is not None:
        return log(row.estimate.step_time_high_s / row.estimate.step_time_low_s) / (2 * NINETY)
    times = [log(seconds) for seconds in row.measurement.step_times_s] if row.measurement else []
    spread = stdev(times) if len(times) > 1 else 0.0
    return spread / sqrt(max(1, len(times)))


def timing_noise(report: Report, *rows: CandidateReport) -> float:
    """Return the relative standard deviation of a ratio of step times of these candidates: their own and the run's."""
    return hypot(run_noise(report), *(estimate_sigma(row) for row in rows))


def throughput(report: Report, baseline: Report) -> Figure | None:
    """Return the sweet spot's throughput: what a launcher gets, whichever candidate it is. Arithmetic repeats itself
    exactly, so a prediction has no noise."""
    row = winner(report)
    if report.is_predicted:
        return Figure(row.rate)
    noise = hypot(timing_noise(report, row), machine_shift(report, baseline))
    return Figure(row.rate, noise) if row.measurement else None


def peak_memory(report: Report, baseline: Report) -> Figure | None:
    """Return bytes of the fullest rank, measured where both reports have that, else predicted in both.

    An allocator repeats itself exactly, so there is no noise.
    """
    rows = [counterpart(one, baseline) for one in (report, baseline)]
    if None in rows:
        return None
    measured = [row.measurement.peak_memory_bytes for row in rows if row and row.measurement]
    predicted = [row.prediction.peak_memory_bytes for row in rows if row]
    mine, theirs = measured if len(measured) == 2 and all(measured) else predicted
    return Figure(float(max(mine))) if mine and theirs else None


def efficiency(report: Report, _: Report) -> Figure | None:
    """Return the share of the estimated step that the mean rank computes at its best micro-batch size."""
    row = winner(report)
    if report.is_predicted and row.prediction.time_split_s.compute:
        return Figure(row.prediction.time_split_s.compute / row.prediction.step_time_s)
    if row.measurement is None or not row.prediction.time_split_s.compute:
        return None
    step = row.sequences / row.rate
    return Figure(row.prediction.time_split_s.compute / step, timing_noise(report, row))


def speedup(report: Report, _: Report) -> Figure | None:
    """Return the throughput of the sweet spot over that of m = 1; None where another m stands in for that."""
    naive = [row for row in report.candidates if row.micro_batches == 1 and row.measurement]
    spot = report.sweet_spot
    if spot is None or not spot.speedup_over_naive:
        return None
    if spot.baseline is not None and report.candidates[spot.baseline].micro_batches > 1:
        return None
    return Figure(spot.speedup_over_naive, timing_noise(report, winner(report), *naive[:1]))


def prediction_error(report: Report, _: Report) -> Figure | None:
    """Return the median over the measured candidates of how far the predicted step time was off."""
    errors = [abs(row.relative_error.step_time) for row in report.candidates if row.relative_error]
    return Figure(median(errors), run_noise(report)) if errors else None


def activation_bytes(report: Report, baseline: Report) -> Figure | None:
    """Return the bytes of activations that one micro-batch holds on the stage where it holds most."""
    row = counterpart(report, baseline)
    profiles = (report.profile, *report.virtual_profiles)
    profile = profile_of(profiles, row.virtual_stages, row.recompute) if row else None
    if row is None or profile is None or not all(stage.memory for stage in profile.stages):
        return None
    held = [stage.bytes(row.micro_batch_size, lambda part: part.activation_bytes) for stage in profile.stages]
    return Figure(max(held)) if max(held) else None


QUANTITIES = (
    Quantity("throughput", "sequences/s", "more", True, throughput),
    Quantity("peak memory of the fullest rank", "bytes", "less", True, peak_memory),
    Quantity("pipeline efficiency", "share", "more", False, efficiency),
    Quantity("speed-up over m = 1", "times", "more", False, speedup),
    Quantity("prediction error, median", "share", "less", False, prediction_error, offset=1.0),
    Quantity("activations of one micro-batch", "bytes", "less", False, activation_bytes),
)
