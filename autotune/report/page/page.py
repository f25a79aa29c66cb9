"""A report as one HTML file: the answer, the plots, the tables behind them, and where the figures come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, select_autoescape

from autotune.errors import AutotuneError
from autotune.predict.recut import recut
from autotune.predict.schedules import build_schedule
from autotune.records.prediction import Basis
from autotune.records.profile import Profile, profile_of
from autotune.records.report import CandidateReport, Report
from autotune.report.answer import conclusion, headline
from autotune.report.bars import under_one_schedule
from autotune.report.hosts import host_lines
from autotune.report.page import plots
from autotune.report.planned_layouts import layout_lines, layout_rows
from autotune.report.predicted_cells import origin
from autotune.report.table import table_of
from autotune.report.timeline.step import Step, timed, with_recorded
from autotune.report.units import show_bytes, show_rate, show_seconds

MOST_ACTIONS = 20_000
"""The most actions of a timeline that is drawn: sixteen ranks of 128 micro-batches with a split backward have 6144."""


@dataclass
class Section:
    """A heading, what it shows, a plot, and the same numbers as a table."""

    title: str
    text: str
    plots: list[Any] = field(default_factory=list)
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    divs: Sequence[str] = ()


def page(report: Report) -> str:
    """Return the whole file of a report."""
    title = f"{headline(report)}, predicted: {origin(report)}" if report.is_predicted else headline(report)
    return rendered(title, conclusion(report).splitlines(), report.warnings, sections_of(report), facts(report))


def rendered(
    title: str,
    answer: Sequence[str],
    warnings: Sequence[str],
    shown: Sequence[Section],
    origin: Sequence[tuple[str, str]],
) -> str:
    """Return a whole file; needs no network. ``answer``: its lines, the most important one first."""
    sections = [one for one in shown if one.plots or one.rows]
    figures = [plot for section in sections for plot in section.plots]
    script, divs = embedded(figures) if figures else ("", ())
    left = iter(divs)
    for section in sections:
        section.divs = [next(left) for _ in section.plots]
    template = (resources.files("autotune.report.page") / "page.html").read_text()
    engine = Environment(autoescape=select_autoescape(default=True, default_for_string=True))
    return engine.from_string(template).render(
        title=title,
        answer=answer[0],
        rest=answer[1:],
        warnings=warnings,
        sections=sections,
        library=Resources(mode="inline", components=["bokeh"], minified=True).render_js() if figures else "",
        script=script,
        facts=origin,
    )


def embedded(figures: Sequence[Any]) -> tuple[str, Sequence[str]]:
    """Return Bokeh's script that draws all figures, and for each the element that it draws into."""
    document = Document()
    with document.models.freeze():  # else all that are in it are walked through again with each that comes
        for figure in figures:
            document.add_root(figure)
    return components(figures)


def sections_of(report: Report) -> list[Section]:
    """Return the sections in the order in which a reader asks."""
    spot = report.candidates[report.sweet_spot.candidate] if report.sweet_spot else None
    curve = under_one_schedule(report)
    stand_in = f" ({curve[0].schedule} where m is too small for it)" if curve[0].schedule != curve[-1].schedule else ""
    name = f"{curve[-1].schedule}{stand_in}"
    return [
        layouts(report),
        Section("Throughput", throughput_text(report), [plots.throughput(report)], *table_of(report)),
        peaks(report, curve, name),
        step_parts(curve, name),
        timelines(report, spot),
        pareto_front(report),
        real_runs(report),
    ]


def peaks(report: Report, curve: Sequence[CandidateReport], name: str) -> Section:
    """Return the section with the memory of every rank along a ``curve`` of the schedule called ``name``."""
    limit = ""
    if report.memory_limit_bytes:
        drawn = "drawn as a dashed line" if plots.is_limit_in_sight(report, curve) else "far above"
        limit = f" The limit is {show_bytes(report.memory_limit_bytes)}, {drawn}."
    memory = plots.memory(report, curve)
    return Section(
        "Peak memory",
        f"Predicted for every rank (r0, r1, …) under {name}, by its parts.{limit}",
        [memory] if memory else [],
        ("m", "rank", *plots.MEMORY_PARTS, "peak", "moment"),
        memory_rows(curve),
    )


def step_parts(curve: Sequence[CandidateReport], name: str) -> Section:
    """Return the section with the parts of a step along a ``curve`` of the schedule called ``name``."""

    def parts(row: CandidateReport) -> list[str]:
        return [show_seconds(getattr(row.prediction.time_split_s, part)) for part in plots.PARTS]

    return Section(
        "Where the time goes",
        f"Seconds that the mean rank spends in one step under {name}, as predicted.",
        [plots.where_time_goes(curve)],
        ("m", *plots.PARTS),
        [[str(row.micro_batches), *parts(row)] for row in curve],
    )


def pareto_front(report: Report) -> Section:
    """Return the section with the candidates that no other one beats in throughput and memory."""
    pareto = plots.pareto(report)
    return Section(
        "Throughput against memory",
        "Nothing beats the candidates on the front in both.",
        [pareto] if pareto else [],
        ("candidate", "sequences/s", "peak memory", "source"),
        [
            (
                report.candidates[point.candidate].name,
                show_rate(point.throughput_seq_s),
                show_bytes(point.peak_memory_bytes),
                point.source,
            )
            for point in report.search.pareto_front
        ],
    )


def real_runs(report: Report) -> Section:
    """Return the section with every real run."""
    ran = in_order(report)
    return Section(
        "Real runs",
        "In the order in which they were made; raw steps, and the median that they give without the cost model.",
        [plots.history(ran)] if len(ran) > 1 else [],
        ("when", "candidate", "steps", "step times", "sequences/s, raw", "outcome"),
        history(report),
    )


def layouts(report: Report) -> Section:
    """Return the best layouts of a number of devices; empty where none were looked for."""
    return Section("The best layouts", " ".join(layout_lines(report)), [], *layout_rows(report))


def throughput_text(report: Report) -> str:
    """Return what the curve of throughput shows."""
    if report.is_predicted:
        dashed = any(row.prediction.basis is Basis.EXTRAPOLATED for row in report.candidates)
        hollow = " Hollow points are extrapolated from other micro-batch sizes." if dashed else ""
        return f"Lines and bands are predictions with their 90 % interval; {origin(report)}.{hollow}"
    return (
        "Lines and bands are predictions with their 90 % interval, after what real runs taught; points are the"
        " estimates of the candidates that ran, with their 90 % interval (in older reports the range of steps)."
    )


def memory_rows(rows: Sequence[CandidateReport]) -> list[list[str]]:
    """Return a row for each m and rank."""
    return [
        [
            str(row.micro_batches),
            str(rank),
            *(show_bytes(getattr(one, part)) for part in plots.MEMORY_PARTS),
            show_bytes(one.total),
            one.moment,
        ]
        for row in rows
        for rank, one in enumerate(row.prediction.memory_split_bytes or ())
    ]


def in_order(report: Report) -> list[CandidateReport]:
    """Return what ran, oldest first."""
    ran = [(row.measurement.measured_at or "", at) for at, row in enumerate(report.candidates) if row.measurement]
    return [report.candidates[at] for _, at in sorted(ran)]


def history(report: Report) -> list[list[str]]:
    """Return what ran, oldest first, then what failed."""
    rows = [
        [
            one.measured_at or "",
            row.name,
            str(len(one.step_times_s)),
            ", ".join(map(show_seconds, one.step_times_s)),
            show_rate(one.throughput_seq_s),
            "; ".join(("stopped early" if one.pruned else "confirmed", *row.doubts)),
        ]
        for row in in_order(report)
        if (one := row.measurement)
    ]
    failed = [row for row in report.candidates if row.failure]
    return rows + [["", row.name, "", "", "", row.failure.message if row.failure else ""] for row in failed]


def timelines(report: Report, spot: CandidateReport | None) -> Section:
    """Return the winner's step, the real one too where it was recorded, and that of the naive m = 1, to the
    same scale."""
    naive = next((row for row in report.candidates if row.micro_batches == 1), None)
    known = [step for row in (spot, naive) if row is not None and (step := step_of(report, row)) is not None]
    steps = [one for step in known for one in step.each]
    end_s = max((step.timeline.makespan for step in steps), default=0.0)
    ranks = [
        [f"m = {step.schedule.micro_batches} {step.name}, {step.source}", str(rank), *map(show_seconds, (busy, idle))]
        for step in steps
        for rank, (busy, idle) in enumerate(zip(step.timeline.busy.tolist(), step.timeline.idle.tolist(), strict=True))
    ]
    return Section(
        "One step",
        "Predicted, with the profile's durations; measured, where autotune run --record-timeline was given; to the same"
        " scale. What is empty is bubble. Scrolling over it zooms.",
        [plots.timeline(step, end_s) for step in steps],
        ("step", "rank", "busy", "idle"),
        ranks,
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


def facts(report: Report) -> list[tuple[str, str]]:
    """Return where the figures come from."""
    pairs = {"command": report.command, "made": report.created, "autotune": report.autotune_version}
    pairs |= report.environment.model_dump() | report.workload.model_dump()
    return fact_rows(pairs | {"hosts": " ".join(host_lines(report.profile))})


def fact_rows(pairs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of them, as text."""
    shown = {
        name.replace("_", " "): ", ".join(map(str, v)) if isinstance(v, tuple | list) else v
        for name, v in pairs.items()
    }
    return [(name, str(value)) for name, value in shown.items() if value not in (None, "")]
