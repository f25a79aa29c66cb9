"""The sections of a report's page, in the order in which a reader asks: charts, and the same numbers as a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bokeh.models import Range1d

from autotune.errors import AutotuneError
from autotune.predict.recut import recut
from autotune.predict.schedules import build_schedule
from autotune.records.prediction import Basis
from autotune.records.profile import Profile, profile_of
from autotune.records.report import CandidateReport, Report
from autotune.report.bars import under_one_schedule
from autotune.report.page import plots, stacks
from autotune.report.page.chart import Chart
from autotune.report.page.colours import MEMORY_PARTS, parts_of
from autotune.report.page.steps import timeline
from autotune.report.paper.planned_layouts import layout_lines, layout_rows
from autotune.report.paper.predicted_cells import forecast_text, origin
from autotune.report.recommend import loses_to
from autotune.report.table import table_of
from autotune.report.timeline.step import Step, timed, with_recorded
from autotune.report.units import show_bytes, show_rate, show_seconds, show_share

RANKS = ("step", "rank", "busy", "idle")
HOW_TO_READ = (
    "Numbers are micro-batches, lines messages, from the end of the action that makes one to the start of the one that"
    " takes it; what is empty is idle. Ctrl with the wheel, or two fingers, zoom along time; more tools show under the"
    " pointer."
)
MOST_APART = 2.5
"""The most times that a step may be longer than the pick's and still be drawn to the same scale."""
MOST_ACTIONS = 20_000
"""The most actions of a timeline that is drawn: sixteen ranks of 128 micro-batches with a split backward have 6144."""


@dataclass
class Section:
    """A heading, what it shows, charts, and the same numbers as a table. ``marked``: the row of the table that is the
    pick."""

    title: str
    text: str
    charts: Sequence[Chart] = ()
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    marked: int | None = None


@dataclass(frozen=True)
class Curve:
    """The candidates under the pick's schedule, by ascending m, and its name in words."""

    rows: Sequence[CandidateReport] = field(default_factory=tuple)
    name: str = ""


def sections_of(report: Report) -> list[Section]:
    """Return the sections below the table."""
    rows = under_one_schedule(report)
    stand_in = f" ({rows[0].schedule} where m is too small for it)" if rows[0].schedule != rows[-1].schedule else ""
    curve = Curve(rows, f"{rows[-1].schedule_text}{stand_in}")
    return [
        layouts(report),
        Section("Throughput", throughput_text(report), [plots.throughput(report)]),
        peaks(report, curve),
        step_parts(report, curve),
        timelines(report),
        recorded_step(report),
        pareto_front(report),
        real_runs(report),
    ]


def table_section(report: Report) -> Section:
    """Return the table of candidates, as the terminal prints it."""
    headers, rows = table_of(report, is_detailed=False)
    pick = report.sweet_spot.candidate if report.sweet_spot else None
    return Section("Candidates", "", headers=headers, rows=rows, marked=pick)


def naive_lines(report: Report) -> list[str]:
    """Return, where m = 1 wins, what the next best candidate loses by cutting the batch; else nothing."""
    pick = plots.pick_of(report)
    rival = rival_of(report)
    if pick is None or pick.micro_batches > 1 or rival is None:
        return []
    loss = 1 - rival.rate / pick.rate
    why = loses_to(rival, pick) if rival.measurement else None
    mostly = f", mostly to {why}" if why else ""
    source = "" if rival.measurement or report.is_predicted else " (estimated, not run)"
    return [
        "Cutting the batch into micro-batches does not pay here: the best of the others,"
        f" {rival.label}{source}, has {show_share(abs(loss))} {'less' if loss >= 0 else 'more'} throughput{mostly}."
    ]


def rival_of(report: Report) -> CandidateReport | None:
    """Return what the pick is drawn beside: m = 1, or the best of the others where m = 1 is the pick."""
    pick = plots.pick_of(report)
    others = [row for row in report.candidates if row is not pick and not plots.is_out(row)]
    if pick is None or pick.micro_batches > 1:
        return next((row for row in others if row.micro_batches == 1), None)
    return max((row for row in others if row.micro_batches > 1), key=lambda row: row.rate, default=None)


def durations(report: Report) -> str:
    """Return where the durations behind predicted steps come from."""
    if report.is_fitted or report.timed_runs:
        return "durations fitted to whole steps"
    if any(row.prediction.basis is Basis.ESTIMATED for row in report.candidates):
        return "durations estimated from the device's data sheet"
    return "the profile's durations"


def throughput_text(report: Report) -> str:
    """Return what the curve of throughput shows."""
    if report.is_predicted:
        return f"The curve is predicted, {origin(report)}; the band is its 90% interval."
    return (
        "The curve is the estimate, after what real runs taught; the band is its 90% interval. Dotted: what the cost"
        f" model says of the pick's schedule, {forecast_text(report)}."
    )


# --- memory and time ----------------------------------------------------------------------------------------------


def peaks(report: Report, curve: Curve) -> Section:
    """Return the section with the memory of every rank."""
    chart = stacks.memory(report, curve.rows)
    ran = any(row.measurement and row.measurement.peak_memory_bytes for row in curve.rows)
    seen = "what the runs made elsewhere held" if report.is_predicted else "what ranks were measured to hold"
    measured = f" The dashes are {seen}." if ran else ""
    return Section(
        "Peak memory",
        f"Predicted for every rank (r0, r1, …) under {curve.name}, by its parts.{measured}",
        [chart] if chart else [],
        ("m", "rank", *MEMORY_PARTS, "peak", "moment"),
        [
            [
                str(row.micro_batches),
                str(rank),
                *(show_bytes(getattr(one, part)) for part in MEMORY_PARTS),
                show_bytes(one.total),
                one.moment,
            ]
            for row in curve.rows
            for rank, one in enumerate(row.prediction.memory_split_bytes or ())
        ],
    )


def step_parts(report: Report, curve: Curve) -> Section:
    """Return the section with the parts of a step, and beside them what steps were measured to take."""
    ran = any(row.measurement for row in curve.rows)

    parts = parts_of([row.prediction.time_split_s for row in curve.rows])

    def cells(row: CandidateReport) -> list[str]:
        seconds = [show_seconds(getattr(row.prediction.time_split_s, part)) for part in parts]
        raw = [show_seconds(row.measurement.step_time_s) if row.measurement else "-"] if ran else []
        return [str(row.micro_batches), *seconds, show_seconds(row.prediction.step_time_s), *raw]

    word = "fitted" if report.is_fitted else "predicted"
    steps = "of the runs made elsewhere" if report.is_predicted else "that were measured"
    beside = f" The dashes are the steps {steps}." if ran else ""
    idle = (
        "Bubble, imbalance and communication are idle time: due to the schedule alone, to unequal stages, to messages."
    )
    return Section(
        "Where the time goes",
        f"Seconds that the mean rank spends in one step under {curve.name}, {forecast_text(report)}.{beside} {idle}",
        [stacks.where_time_goes(report, curve.rows)],
        ("m", *parts, f"{word} step", *(["raw steps, median"] if ran else [])),
        [cells(row) for row in curve.rows],
    )


# --- timelines ----------------------------------------------------------------------------------------------------


def timelines(report: Report) -> Section:
    """Return the pick's step, the real one too where it was recorded, and what it stands against: to the same scale,
    unless that made the pick's too small."""
    pick, rival = plots.pick_of(report), rival_of(report)
    chosen = [row for row in (pick, rival) if row is not None]
    drawn = [(row, step) for row in chosen if (step := step_of(report, row)) is not None]
    lengths = [max(one.step_time_s for one in step.each) for _, step in drawn]
    is_alike = bool(lengths) and max(lengths) <= MOST_APART * lengths[0]
    shared = span_of(max(lengths, default=1.0))
    charts, ranks = [], []
    for (row, step), length in zip(drawn, lengths, strict=True):
        span = shared if is_alike else span_of(length)
        for one in step.each:
            name = f"{row.label}, {source_text(report, one)}"
            chart = timeline(one, span)
            chart.title = f"★ {name}" if row is pick else name
            charts.append(chart)
            busy_idle = zip(one.timeline.busy.tolist(), one.timeline.idle.tolist(), strict=True)
            ranks += [[name, str(rank), *map(show_seconds, pair)] for rank, pair in enumerate(busy_idle)]
    scale = "all to the same scale" if is_alike else f"m = {rival.micro_batches if rival else 1} to a scale of its own"
    was_recorded = any(one.is_recorded for _, step in drawn for one in step.each)
    real = " the measured one as autotune run --record-timeline saw it;" if was_recorded else ""
    return Section(
        "One step", f"Simulated with {durations(report)};{real} {scale}. {HOW_TO_READ}", charts, RANKS, ranks
    )


def span_of(length_s: float) -> Range1d:
    """Return the axis of a step of so many seconds, that cannot be left."""
    return Range1d(start=0, end=length_s, bounds=(0, length_s))


def source_text(report: Report, step: Step) -> str:
    """Return where the times of a step come from."""
    return "measured" if step.is_recorded else "as fitted" if report.is_fitted or report.timed_runs else "predicted"


def recorded_step(report: Report) -> Section:
    """Return what the mean rank does in the recorded step, measured beside predicted; empty where none was."""
    row = report.candidates[report.recorded_step.candidate] if report.recorded_step else None
    step = step_of(report, row) if row is not None else None
    if row is None or step is None or step.recorded is None:
        return Section("Measured beside predicted", "")
    parts = stacks.recorded_parts(step)
    chart = stacks.recorded(step)
    chart.title = f"★ {row.label}" if row is plots.pick_of(report) else row.label
    return Section(
        "Measured beside predicted",
        f"Seconds of the mean rank in the recorded step of {row.label}, and in the predicted one. Idle is all idle"
        " time, whatever it is due to: a recording does not tell the bubble from the rest.",
        [chart],
        ("part", "predicted", "measured"),
        [[name, *map(show_seconds, seconds)] for name, seconds in parts.items()],
    )


def step_of(report: Report, row: CandidateReport) -> Step | None:
    """Return the candidate's simulated step; None where it has too many actions to draw, or cannot be simulated."""
    profiles: list[Profile] = [report.profile, *report.virtual_profiles]
    profile = profile_of(profiles, row.virtual_stages, row.recompute)
    if profile is None or 3 * row.micro_batches * len(profile.stages) > MOST_ACTIONS:
        return None
    try:
        profile = recut(profile, row.split)
        schedule = build_schedule(row.schedule, profile.ranks, row.micro_batches, row.virtual_stages)
        return with_recorded(timed(Path("the report"), profile, schedule, row.micro_batch_size, ()), report)
    except (AutotuneError, ValueError):
        return None


# --- the rest -----------------------------------------------------------------------------------------------------


def pareto_front(report: Report) -> Section:
    """Return the section with the candidates that no other one beats in throughput and memory."""
    chart = plots.pareto(report)
    points = report.search.pareto_front
    words = "Nothing beats the candidates on the line in both." if len(points) > 1 else "One candidate is best in both."
    return Section(
        "Throughput against memory",
        words,
        [chart] if chart else [],
        ("candidate", "sequences/s", "peak memory", "ran"),
        [
            (
                report.candidates[point.candidate].label,
                show_rate(report.replicas * point.throughput_seq_s),
                show_bytes(point.peak_memory_bytes),
                "yes" if point.source == "measured" else "no",
            )
            for point in points
        ],
    )


def real_runs(report: Report) -> Section:
    """Return the section with every real run; of a fit, with those made elsewhere."""
    if report.is_predicted:
        return runs_elsewhere(report)
    ran = in_order(report)
    return Section(
        "Real runs",
        "In the order in which they were made; raw steps, and the median that they give without the cost model.",
        [plots.history(report, ran)] if len(ran) > 1 else [],
        ("when", "candidate", "steps", "step times", "sequences/s, raw", "outcome"),
        history_rows(report),
    )


def runs_elsewhere(report: Report) -> Section:
    """Return the section with the runs that a fit learned from; empty where there are none."""
    return Section(
        "Runs made elsewhere",
        "What the predictions are fitted to.",
        headers=("candidate", "b", "step", "sequences/s of a replica", "source"),
        rows=[
            [
                run.candidate.label,
                str(run.candidate.micro_batch_size),
                show_seconds(run.step_time_s),
                show_rate(run.candidate.sequences / run.step_time_s),
                run.source or "-",
            ]
            for run in report.timed_runs
        ],
    )


def layouts(report: Report) -> Section:
    """Return the best layouts of a number of devices; empty where none were looked for."""
    headers, rows = layout_rows(report)
    return Section("The best layouts", " ".join(layout_lines(report)), [], headers, rows, 0 if rows else None)


def in_order(report: Report) -> list[CandidateReport]:
    """Return what ran, oldest first."""
    ran = [(row.measurement.measured_at or "", at) for at, row in enumerate(report.candidates) if row.measurement]
    return [report.candidates[at] for _, at in sorted(ran)]


def history_rows(report: Report) -> list[list[str]]:
    """Return what ran, oldest first, then what failed."""
    rows = [
        [
            one.measured_at or "-",
            row.label,
            str(len(one.step_times_s)),
            ", ".join(map(show_seconds, one.step_times_s)),
            show_rate(one.throughput_seq_s),
            "; ".join(("stopped early" if one.pruned else "confirmed", *row.doubts)),
        ]
        for row in in_order(report)
        if (one := row.measurement)
    ]
    failed = [row for row in report.candidates if row.failure]
    return rows + [["-", row.label, "-", "-", "-", row.failure.message if row.failure else ""] for row in failed]
