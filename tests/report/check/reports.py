"""Reports to compare: a winner whose steps, and a machine whose name, the test chooses."""

from dataclasses import replace

from autotune.records.outcome import Measurement
from tests.report.export.reports import make_report

HERE = {"device": "cuda", "devices": ["A100"] * 4, "torch_version": "2.13.0", "python_version": "3.11.2"}
PEAKS = (1000, 800, 600, 400)


def measured(steps, peak=1.0):
    peaks = tuple(round(size * peak) for size in PEAKS)
    return Measurement.of(tuple(steps), sequences=64, seq_len=32, peak_memory_bytes=peaks)


def with_measurement(row, outcome):
    error = {"step_time": row.prediction.step_time_s / outcome.step_time_s - 1}
    return type(row).model_validate(row.model_dump() | {"measurement": outcome.model_dump(), "relative_error": error})


def report_of(steps=(0.5, 0.501, 0.499, 0.5), naive=(1.5,), peak=1.0, drift=0.0, environment=HERE, **workload):
    """m = 8 of 1F1B won with these steps; m = 1 took ``naive``."""
    made = make_report(winner=(8, "1F1B"), **workload)
    at, rows = made.sweet_spot.candidate, list(made.candidates)
    first = next(index for index, row in enumerate(rows) if row.micro_batches == 1)
    rows[at] = with_measurement(rows[at], measured(steps, peak))
    rows[first] = with_measurement(rows[first], measured(naive))
    speedup = rows[first].measurement.step_time_s / rows[at].measurement.step_time_s
    return made.model_copy(
        update={
            "candidates": tuple(rows),
            "sweet_spot": made.sweet_spot.model_copy(update={"speedup_over_naive": speedup}),
            "environment": type(made.environment).model_validate(environment),
            "profile": made.profile.model_copy(update={"drift": drift}),
        }
    )


def with_drift(report, drift):
    """The same, of a search that found the machine to drift."""
    return report.model_copy(update={"search": report.search.model_copy(update={"drift": drift})})


def with_profile(report, factor):
    """The same, with stages that took ``factor`` times as long while they were profiled."""
    stages = [
        stage.model_copy(
            update={"time_s": tuple(replace(row, t_f=factor * row.t_f, t_bw=factor * row.t_bw) for row in stage.time_s)}
        )
        for stage in report.profile.stages
    ]
    return report.model_copy(update={"profile": report.profile.model_copy(update={"stages": tuple(stages)})})


def with_row(report, row):
    """The same, with another row of the sweet spot."""
    rows = list(report.candidates)
    rows[report.sweet_spot.candidate] = row
    return report.model_copy(update={"candidates": tuple(rows)})
