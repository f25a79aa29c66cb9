"""Charts of candidates as points: throughput against m, throughput against memory, the real runs in their order."""

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d

from autotune.records.prediction import Basis, Family
from autotune.records.report import CandidateReport, Report
from autotune.report.answer import does_not_fit
from autotune.report.bars import under_one_schedule
from autotune.report.page.chart import HOLLOW, MARKERS, Chart, Key, Sign, inked, mark, memory_unit, plain
from autotune.report.page.colours import INK, INK_HEX, OTHERS, OUT, PICK
from autotune.report.recommend import is_undecided

FOOT = 0.04  # of the height of a chart, at which what has no rate is marked
RIVALS = Key("might be better", PICK, Sign.HOLLOW_STAR)
ROOM = 1.15  # times the highest rate that is drawn: intervals may leave the frame, points may not


def pick_of(report: Report) -> CandidateReport | None:
    """Return the recommended candidate; None where there is none."""
    return report.candidates[report.sweet_spot.candidate] if report.sweet_spot else None


def pick_key(report: Report) -> Key:
    """Return what the star means."""
    spot = report.sweet_spot
    name = "best prediction" if report.is_predicted else "sweet spot"
    return Key("recommended, but undecided" if spot and is_undecided(spot) else name, PICK, Sign.STAR)


def marked(report: Report, drawn: Collection[CandidateReport]) -> list[tuple[CandidateReport, bool]]:
    """Return those that a chart of ``drawn`` marks: the recommended candidate, then with True what it could be instead,
    where it is undecided."""
    spot = report.sweet_spot
    found = [(spot.candidate, False), *((index, True) for index in spot.undecided_with)] if spot else []
    return [(row, is_rival) for index, is_rival in found if (row := report.candidates[index]) in drawn]


def mark_keys(report: Report, drawn: Collection[CandidateReport]) -> list[Key]:
    """Return what the stars of such a chart mean."""
    kinds = [is_rival for _, is_rival in marked(report, drawn)]
    return [pick_key(report)] * (False in kinds) + [RIVALS] * (True in kinds)


def add_picks(
    plot: Any, report: Report, drawn: Collection[CandidateReport], x_of: Callable[[CandidateReport], float]
) -> list[Key]:
    """Mark them at their throughput and ``x_of`` them; return the keys."""
    for row, is_rival in marked(report, drawn):
        mark(plot, x_of(row), rate_of(report, row), is_rival)
    return mark_keys(report, drawn)


def rate_of(report: Report, row: CandidateReport) -> float:
    """Return the sequences per second of all replicas that the table prints of a candidate."""
    return report.replicas * row.rate


def schedules(rows: Iterable[CandidateReport]) -> dict[str, list[CandidateReport]]:
    """Return the candidates of each schedule and number of stages per rank, by ascending m."""
    found: dict[Family, list[CandidateReport]] = {}
    for row in sorted(rows, key=lambda one: one.micro_batches):
        found.setdefault(row.family, []).append(row)
    return {alike[0].schedule_text: alike for alike in found.values()}


def is_out(row: CandidateReport) -> bool:
    """Return True of a candidate that failed or does not fit: it has no place on the curve."""
    return row.failure is not None or (row.measurement is None and does_not_fit(row))


# --- throughput against m -----------------------------------------------------------------------------------------


def throughput(report: Report) -> Chart:
    """Return sequences per second against m: a curve with its interval for each schedule, points where candidates
    ran."""
    counts = sorted({row.micro_batches for row in report.candidates})
    plot = plain(x_axis_type="log", x_axis_label="m, micro-batches", y_axis_label="sequences per second")
    plot.xaxis.ticker = counts
    shown = under_one_schedule(report)
    families = curves(report, shown)
    keys = [
        key
        for at, ((name, rows), marker) in enumerate(zip(families.items(), cycle(len(families)), strict=True))
        for key in add_curve(plot, report, name, rows, marker, at == 0)
    ]
    rates = [rate_of(report, row) for rows in families.values() for row in rows]
    if not report.is_predicted:
        keys.append(add_predicted(plot, report, shown))
        rates += [row.prediction.throughput_seq_s for row in shown]
    plot.y_range = Range1d(start=0, end=ROOM * max(rates, default=1.0))
    keys += add_out(plot, report)
    if pick := pick_of(report):
        plot.vspan(x=[pick.micro_batches], line_color=PICK, line_alpha=0.5)
    return Chart(plot, [*add_picks(plot, report, report.candidates, lambda row: row.micro_batches), *keys])


def curves(report: Report, shown: Sequence[CandidateReport]) -> dict[str, list[CandidateReport]]:
    """Return the candidates of each curve by its name: first those ``shown`` under the schedule of the pick, with what
    stands in where m is too small for it."""
    own = [row for row in shown if not is_out(row)]
    first, last = shown[0].schedule_text, shown[-1].schedule_text
    name = last if first == last else f"{last} ({first} at small m)"
    rest = schedules(row for row in report.candidates if not is_out(row))
    return {name: own} | {key: rows for key, rows in rest.items() if not all(row in own for row in rows)}


def cycle(count: int) -> list[str]:
    """Return so many shapes of points, each as often as needed."""
    names = list(MARKERS)
    return [names[at % len(names)] for at in range(count)]


class Known(StrEnum):
    """What a point of a curve rests on."""

    RAN = "ran"
    NOT_RUN = "not run"
    EXTRAPOLATED = "extrapolated"


def known_of(row: CandidateReport) -> Known:
    """Return what the rate of a candidate rests on."""
    if row.measurement is not None:
        return Known.RAN
    return Known.EXTRAPOLATED if row.prediction.basis is Basis.EXTRAPOLATED else Known.NOT_RUN


def add_curve(
    plot: Any, report: Report, name: str, rows: Sequence[CandidateReport], marker: str, is_pick: bool
) -> list[Key]:
    """Add a schedule's curve: a line of the estimates, a band of their interval, a full point where a candidate ran, a
    hollow one where none did and a cross where its times are extrapolated; return its keys. ``is_pick``: it is the
    schedule of the pick."""
    colour, width = (INK_HEX, 2) if is_pick else (OTHERS, 1)
    source = ColumnDataSource(curve_columns(report, rows))
    band = plot.varea("m", "low", "high", source=source, color=colour, alpha=0.12 if is_pick else 0.08)
    line = plot.line("m", "rate", source=source, color=colour, line_width=width)
    drawn, keys = [band, line], []
    for known in Known:
        found = [row for row in rows if known_of(row) is known]
        if not found:
            continue
        has_run, is_guess = known is Known.RAN, known is Known.EXTRAPOLATED
        points = plot.scatter(
            "m",
            "rate",
            source=ColumnDataSource(curve_columns(report, found)),
            marker="x" if is_guess else marker,
            size=9,
            line_color=colour,
            fill_color=colour if has_run else None,
        )
        drawn.append(points)
        plot.add_tools(HoverTool(renderers=[points], tooltips=tips(name, has_run)))
        sign = MARKERS[marker] if has_run else Sign.CROSS if is_guess else HOLLOW[marker]
        keys.append(Key(f"{name}, {known.value}", INK if is_pick else OTHERS, sign))
    if is_pick:
        for one in drawn:
            inked(one)
    return keys


def tips(name: str, has_run: bool) -> list[tuple[str, str]]:
    """Return what is shown of the point under the pointer."""
    told = [("schedule", name), ("m", "@m"), ("sequences/s", "@rate{0.0} (@low{0.0} to @high{0.0})")]
    return [*told, ("raw", "median @raw{0.0} of @steps steps")] if has_run else told


def curve_columns(report: Report, rows: Sequence[CandidateReport]) -> dict[str, list[float]]:
    """Return m, the rate and its interval for each candidate, and of what ran the raw steps."""
    spans = [span(row) for row in rows]
    columns: dict[str, list[float]] = {
        "m": [row.micro_batches for row in rows],
        "rate": [rate_of(report, row) for row in rows],
        "low": [report.data_parallel * row.sequences / high for row, (_, high) in zip(rows, spans, strict=True)],
        "high": [report.data_parallel * row.sequences / low for row, (low, _) in zip(rows, spans, strict=True)],
    }
    ran = [row.measurement for row in rows if row.measurement is not None]
    if len(ran) == len(rows):
        columns["raw"] = [report.replicas * one.throughput_seq_s for one in ran]
        columns["steps"] = [len(one.step_times_s) for one in ran]
    return columns


def span(row: CandidateReport) -> tuple[float, float]:
    """Return the interval of a candidate's step, in seconds; in reports without estimates the range of its steps."""
    if row.estimate is None and row.measurement is not None:
        return min(row.measurement.step_times_s), max(row.measurement.step_times_s)
    known = row.estimate or row.last_prediction or row.prediction
    return known.step_time_low_s, known.step_time_high_s


def add_predicted(plot: Any, report: Report, rows: Sequence[CandidateReport]) -> Key:
    """Add what the cost model said along the pick's curve, before any of them ran; of a command, what was fitted to its
    steps."""
    data = {
        "m": [row.micro_batches for row in rows],
        "predicted": [row.prediction.throughput_seq_s for row in rows],
    }
    source = ColumnDataSource(data)
    inked(plot.line("m", "predicted", source=source, color=INK_HEX, line_dash="dotted", line_width=2))
    return Key("fitted to the steps" if report.is_fitted else "predicted before any ran", INK, Sign.DOTTED)


def add_out(plot: Any, report: Report) -> list[Key]:
    """Add a cross at the foot of the chart for what failed or does not fit."""
    found = [row for row in report.candidates if is_out(row)]
    if not found:
        return []
    data = {
        "m": [row.micro_batches for row in found],
        "foot": [FOOT * plot.y_range.end] * len(found),
        "name": [row.label for row in found],
        "why": [row.failure.message if row.failure else row.excluded or "does not fit" for row in found],
    }
    crosses = plot.scatter("m", "foot", source=ColumnDataSource(data), marker="x", size=12, color=OUT, line_width=3)
    plot.add_tools(HoverTool(renderers=[crosses], tooltips=[("", "@name"), ("", "@why")]))
    return [Key("failed, or does not fit", OUT, Sign.CROSS)]


# --- throughput against memory, and the runs in their order -------------------------------------------------------


def pareto(report: Report) -> Chart | None:
    """Return throughput against peak memory, and those that no other beats in both; None where memory is not known."""
    known = [row for row in report.candidates if row.peak is not None and row.failure is None]
    if not known:
        return None
    unit, size = memory_unit(max(row.peak or 0 for row in known))
    plot = plain(x_axis_label=f"peak memory of the fullest rank, {unit}", y_axis_label="sequences per second")
    keys = [key for has_run in (True, False) for key in add_dots(plot, report, known, has_run, unit, size)]
    front = [(point.peak_memory_bytes / size, point.throughput_seq_s) for point in report.search.pareto_front]
    if len(front) > 1:
        xs, ys = zip(*sorted(front), strict=True)
        plot.step(xs, [report.replicas * y for y in ys], mode="after", color=OTHERS, line_width=2)
        keys.append(Key("nothing beats these in both", OTHERS, Sign.LINE))
    limit = report.memory_limit_bytes
    if limit and limit < 2 * max(row.peak or 0 for row in known):
        plot.vspan(x=[limit / size], line_color=OUT, line_dash="dashed")
        keys.append(Key("memory limit", OUT, Sign.DASHED))
    return Chart(plot, [*add_picks(plot, report, known, lambda row: (row.peak or 0) / size), *keys])


def add_dots(
    plot: Any, report: Report, rows: Sequence[CandidateReport], has_run: bool, unit: str, size: int
) -> list[Key]:
    """Add the candidates that ran, full, or those that did not, hollow; return their key."""
    found = [row for row in rows if (row.measurement is not None) == has_run]
    if not found:
        return []
    data = {
        "memory": [(row.peak or 0) / size for row in found],
        "rate": [rate_of(report, row) for row in found],
        "name": [row.label for row in found],
    }
    source, fill = ColumnDataSource(data), INK_HEX if has_run else None
    dots = inked(plot.scatter("memory", "rate", source=source, size=8, line_color=INK_HEX, fill_color=fill))
    shown = [("", "@name"), ("sequences/s", "@rate{0.0}"), (unit, "@memory{0.000}")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=shown))
    return [Key("ran", INK, Sign.CIRCLE) if has_run else Key("not run", INK, Sign.HOLLOW)]


def history(report: Report, rows: Sequence[CandidateReport]) -> Chart:
    """Return the estimated throughput of what ran, in the order in which it first ran, and the best up to then."""
    rates = [rate_of(report, row) for row in rows]
    numbers = list(range(1, len(rates) + 1))
    best = [max(rates[:number]) for number in numbers]
    plot = plain(height=240, x_axis_label="candidates, as they ran", y_axis_label="sequences per second")
    plot.xaxis.ticker = numbers
    plot.y_range = Range1d(start=0, end=ROOM * max(rates))
    plot.step(numbers, best, mode="after", color=OTHERS, line_width=2)
    source = ColumnDataSource({"number": numbers, "rate": rates, "name": [row.label for row in rows]})
    dots = inked(plot.scatter("number", "rate", source=source, size=8, color=INK_HEX))
    plot.add_tools(HoverTool(renderers=[dots], tooltips=[("", "@name"), ("sequences/s", "@rate{0.0}")]))
    keys = [Key("estimate", INK, Sign.CIRCLE), Key("best by then", OTHERS, Sign.LINE)]
    return Chart(plot, [*add_picks(plot, report, rows, lambda row: rows.index(row) + 1), *keys])
