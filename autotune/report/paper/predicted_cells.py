"""The cells of a candidate that was only predicted: three significant digits, an interval, and where it comes from."""

from autotune.records.prediction import Basis
from autotune.records.report import CandidateReport, Report
from autotune.report.units import counted, show_bytes, show_rough


def origin(report: Report) -> str:
    """Return what stands behind a report of predictions."""
    if report.timed_runs:
        return f"fitted to {counted(len(report.timed_runs), 'run')} made elsewhere"
    told = sum(len(row.measurement.step_times_s) for row in report.candidates if row.measurement)
    return f"corrected by {counted(told, 'step')} made elsewhere" if told else "nothing was run"


def forecast_text(report: Report) -> str:
    """Return what the figures of the cost model are: predicted, and before what; or fitted."""
    if report.is_fitted:
        return "fitted to the steps"
    return "predicted" if report.is_predicted else "predicted before any ran"


def basis_text(row: CandidateReport, report: Report) -> str:
    """Return ``extrapolated from other sizes``, or where else the figures come from."""
    if row.measurement is not None:
        return "it ran"
    if row.estimate is not None and report.timed_runs:
        is_between = row.prediction.basis is not Basis.EXTRAPOLATED
        return "fitted, between sizes that ran" if is_between else "fitted, beyond the sizes that ran"
    words = {
        Basis.MEASURED: "predicted",
        Basis.INTERPOLATED: "predicted, times interpolated",
        Basis.EXTRAPOLATED: "extrapolated, not timed at this b",
        Basis.ESTIMATED: "estimated",
    }
    return words[row.prediction.basis]


def predicted_cells(row: CandidateReport, report: Report, mark: str) -> dict[str, str]:
    """Return the cells of a candidate that did not run, by column; empty where nothing is known. Rates are of all
    replicas in ``report``."""
    prediction, stated = row.prediction, row.estimate or row.prediction
    quicker = stated.throughput_seq_s / prediction.throughput_seq_s  # than predicted, where a step was told since
    sequences, known = stated.throughput_seq_s * report.replicas, prediction.throughput_tokens_s
    tokens = known * quicker * report.replicas if known else None
    each = (tokens or sequences) / report.devices
    spread = f"{show_step(stated.step_time_low_s)} to {show_step(stated.step_time_high_s)}"
    utilisation = prediction.model_flops_utilisation
    misfit = "does not fit" if prediction.fits is False or row.over_limit_bytes is not None else ""
    return {
        "m": str(row.micro_batches),
        "b": f"{row.micro_batch_size}" + (f" (+{row.padding} pad)" if row.padding else ""),
        "schedule": row.schedule_text,
        "step": show_step(stated.step_time_s),
        "90% interval": spread,
        "sequences/s": show_rough(sequences),
        "tokens/s": show_rough(tokens) if tokens else "",
        f"{'tokens' if tokens else 'sequences'}/s per device": show_rough(each),
        "MFU": f"{utilisation * quicker:.1%}" if utilisation else "",
        "bubble": f"{prediction.bubble_share:.1%}",
        "peak memory": peak_text(row),
        "status": mark + (row.excluded or misfit or basis_text(row, report)),
    }


def peak_text(row: CandidateReport) -> str:
    """Return the peak of the fullest rank; empty where it is not known."""
    return show_bytes(row.peak) if row.peak is not None else ""


def show_step(seconds: float) -> str:
    """Return ``1.23 s``, ``45.6 ms``: three significant digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{show_rough(seconds / size)} {unit}"
    return f"{seconds:g} s"
