"""Sentences on the likely cost of a run, and on its real cost beside that of confirming every candidate."""

from collections.abc import Iterator

from autotune.records.forecast import Forecast
from autotune.records.report import Report


def minutes(seconds: float) -> str:
    """Return ``12.3 min``, or ``8 s`` where that is less than a minute."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def forecast_lines(found: Forecast) -> Iterator[str]:
    """Return the forecast as a few lines of text."""
    left_out = f" ({found.excluded} more are excluded)" if found.excluded else ""
    yield f"candidates  {found.candidates - found.excluded}{left_out}"
    yield f"trials      about {found.trials:.0f}, with {found.real_steps:.0f} real steps"
    yield (
        f"wall time   about {minutes(found.wall_s)}: {minutes(found.starting_s)} to start,"
        f" {minutes(found.profiling_s)} to profile, {minutes(found.steps_s)} of real steps"
    )
    yield (
        f"devices     {minutes(found.device_s)} of device time on {found.ranks} devices; confirming every candidate"
        f" would take {minutes(found.exhaustive_device_s)}"
    )
    rough = " and a matrix product timed here, so it may be off by a factor of two or three"
    yield f"basis       {found.basis}{rough if found.basis == 'arithmetic' else ''}; nothing was run"


def cost_text(report: Report) -> str:
    """Return a sentence on the devices' time beside that of confirming every candidate; nothing where not known."""
    spent, exhaustive = report.search.device_s, report.search.exhaustive_device_s
    if not spent or not exhaustive:
        return ""
    everything = f"confirming every candidate would have taken {minutes(exhaustive)}"
    return f"\nThe devices worked {minutes(spent)} in all; {everything}."
