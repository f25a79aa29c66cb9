"""What stands behind an exported candidate: what was measured, on what, and how sure the choice is."""

from autotune.records.report import Report
from autotune.report.answer import headline
from autotune.report.paper.predicted_cells import origin
from autotune.report.recommend import is_undecided
from autotune.report.units import show_certainty, show_rate, show_rough
from autotune.report.workload import samples


def evidence(report: Report, index: int) -> str:
    """Return ``measured: 128.0 sequences/s; 48 layers, 4 stages, batch 64 on cuda (4 x NVIDIA H100); 93% sure``."""
    row = report.candidates[index]
    unit = f"{samples(report.workload)}/s"
    rate = report.replicas * row.rate
    if report.is_predicted:
        figures = f"predicted, {origin(report)}: {show_rough(rate)} {unit}"
    elif row.measurement is None:
        figures = f"predicted, it did not run: {show_rough(rate)} {unit}"
    else:
        figures = f"measured: {show_rate(rate)} {unit}"
    where = headline(report) + devices_text(report) if report.is_predicted or report.environment.device else ""
    return "; ".join(part for part in (figures, where, sure_text(report, index)) if part)


def devices_text(report: Report) -> str:
    """Return `` (4 x NVIDIA H100)``; nothing where the devices have no names."""
    names = report.environment.devices
    counts = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return f" ({', '.join(counts)})" if counts else ""


def sure_text(report: Report, index: int) -> str:
    """Return how sure it is that the candidate is the sweet spot; what is said of an undecided one is said apart."""
    spot = report.sweet_spot
    if spot is None or spot.candidate != index:
        return "not the sweet spot of the report" if spot is not None else ""
    return f"{show_certainty(spot.certainty)} sure" if spot.certainty is not None and not is_undecided(spot) else ""
