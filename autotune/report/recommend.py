"""The recommendation in a report: what follows from the candidates' rows and the search's verdict, and nothing else.

Every figure here is made from ``CandidateReport.rate``, the one that the table prints, so that each can be recomputed
from what is printed.
"""

from collections.abc import Sequence
from math import inf

from autotune.records.prediction import Basis
from autotune.records.report import CandidateReport, KneeReport, Neighbour, Report, SweetSpot
from autotune.records.verdict import Objective, ParetoPoint, Stop, StopReason, Verdict
from autotune.report.units import show_bytes, show_share

Rows = Sequence[CandidateReport]

KNEE_TOLERANCE = 0.01  # of the curve's best throughput
SURE = 0.8  # a pick that is less certain is called undecided
GRANULARITY = dict.fromkeys(("compute", "overhead", "slowdown"), "granularity")  # what grows in small micro-batches
STOP_TEXTS = {
    StopReason.RUNNING: "still running",
    StopReason.DECIDED: "further steps are not expected to change the choice by enough to be worth their time",
    StopReason.ALL_MEASURED: "every candidate was measured",
    StopReason.NOTHING_LEFT: "no candidate is left to try",
    StopReason.BUDGET: "the budget of {limit:g} s",
    StopReason.TRIALS: "the limit of {limit:g} trial{s}",
    StopReason.SAME_FAILURE: "all trials failed alike",
    StopReason.INFEASIBLE: "no candidate fits in memory",
    StopReason.INTERRUPTED: "interrupted by the user",
    StopReason.DEVICES: "devices or ranks were lost",
    StopReason.STORAGE: "the study could not be written",
}


def stop_text(stop: Stop) -> str:
    """Return a sentence on why a search ended."""
    return stop.message or STOP_TEXTS[stop.reason].format(limit=stop.limit, s="" if stop.limit == 1 else "s")


def recommend(rows: Rows, verdict: Verdict, memory_limit: int | None, present: int | None = None) -> SweetSpot | None:
    """Return the sweet spot of ``rows`` as ``verdict`` picks it; None where it picks none. ``present``: index of what
    the user runs now."""
    if verdict.pick is None:
        return None
    row = rows[verdict.pick]
    peaks = measured_bytes(row) if row.measurement else needed_bytes(row)
    reference = baseline(rows)
    speedup = row.rate / rows[reference].rate if reference is not None else None
    if reference == verdict.pick and row.micro_batches > 1:
        speedup = None  # nothing that ran has a smaller m
    now = rows[present] if present is not None and rows[present].measurement is not None else None
    return SweetSpot(
        **row.dimensions,
        candidate=verdict.pick,
        certainty=verdict.certainty,
        undecided_with=verdict.undecided_with if is_undecided(verdict) else (),
        baseline=reference,
        throughput_seq_s=row.rate,
        speedup_over_naive=speedup,
        present=present if now else None,
        speedup_over_present=row.rate / now.rate if now else None,
        memory_headroom_bytes=tuple(memory_limit - peak for peak in peaks) if peaks and memory_limit else None,
        reason=reason(rows, verdict.pick, verdict.objective, verdict.tolerance),
        confirmed=row.measurement is not None,
        knee=knee(rows, verdict.pick),
        ties=ties(rows, verdict.pick, verdict.tolerance) if verdict.objective == "throughput" else (),
    )


def is_undecided(found: Verdict | SweetSpot) -> bool:
    """Return True where the pick is to be called undecided."""
    return found.certainty < SURE if found.certainty is not None else bool(found.undecided_with)


def undecided_text(report: Report) -> str:
    """Return ``undecided between m = 2, 4 and 8``, by ascending m, of a report whose sweet spot is."""
    spot, rows = report.sweet_spot, report.candidates
    if spot is None or not spot.undecided_with:
        return "undecided"
    found = sorted((rows[index] for index in (spot.candidate, *spot.undecided_with)), key=lambda row: row.micro_batches)
    is_alike = len({row.family for row in found}) == 1
    *names, last = [str(row.micro_batches) if is_alike else row.label for row in found]
    return f"undecided between {'m = ' if is_alike else ''}{', '.join(names)} and {last}"


def measured_bytes(row: CandidateReport) -> tuple[int, ...] | None:
    """Return what each rank was seen to take from its device; None where that was not measured."""
    return (row.measurement.device_memory_bytes or row.measurement.peak_memory_bytes) if row.measurement else None


def needed_bytes(row: CandidateReport) -> tuple[int, ...] | None:
    """Return what each rank takes from its device, measured or else predicted; None where it is not known."""
    return measured_bytes(row) or row.prediction.device_memory_bytes or row.prediction.peak_memory_bytes


def under_limit(row: CandidateReport, memory_limit: int | None) -> CandidateReport:
    """Return the row marked with the bytes that it needs beyond the limit in force, whoever measured it."""
    needed = needed_bytes(row)
    over = max(needed) - memory_limit if needed and memory_limit else 0
    return row.model_copy(update={"over_limit_bytes": over if over > 0 else None})


def contenders(rows: Rows) -> list[int]:
    """Return the candidates that ran and may win, the fastest first; where nothing ran, those that may by their
    predictions."""
    has_run = any(row.measurement is not None for row in rows)
    ran = [index for index, row in enumerate(rows) if row.may_win and (row.measurement is not None or not has_run)]
    return sorted(ran, key=lambda index: -rows[index].rate)


def baseline(rows: Rows) -> int | None:
    """Return what the speed-up is stated against: the smallest m that ran and fits, the fastest one with it."""
    return min(contenders(rows), key=lambda index: rows[index].micro_batches, default=None)


def reason(rows: Rows, pick: int, objective: Objective, tolerance: float) -> str:
    """Return which rule decided, as a sentence that follows "because"; true of the rates in ``rows``."""
    others = [index for index in contenders(rows) if index != pick]
    if not others:
        ran = [row for row in rows if row.measurement is not None]
        if not ran:
            return only_predicted(rows)
        is_limited = any(row.over_limit_bytes is not None for row in ran)
        rest = "" if len(ran) == 1 else " and fits in the memory limit" if is_limited else " and may be used"
        return f"it is the only candidate that was measured{rest}"
    top = max((pick, *others), key=lambda index: rows[index].rate)
    if rows[pick].rate < rows[top].rate * (1 - tolerance):
        return behind(rows[pick], rows[top])
    close = [index for index in others if rows[index].rate >= rows[top].rate * (1 - tolerance)]
    if objective == "memory":
        return leanest(rows, pick, top, close, tolerance)
    if not close:
        return f"it has the highest throughput, {show_share(rows[pick].rate / rows[others[0]].rate - 1)} above the next"
    names = ", ".join(rows[index].label for index in close)
    saved = saved_bytes(rows[pick], [rows[index] for index in close])
    tie = f"it is tied with {names} within {show_share(tolerance, 0)}"
    if saved is None or saved < 0:
        return tie
    return f"{tie} and {f'needs {show_bytes(saved)} less memory than the next' if saved else 'none needs less memory'}"


def only_predicted(rows: Rows) -> str:
    """Return why one candidate is the only one that its prediction alone may recommend."""
    if len(rows) == 1:
        return "it is the only candidate"
    rules = {
        "of a micro-batch size that was timed": any(row.prediction.basis is Basis.EXTRAPOLATED for row in rows),
        "that fits in the memory limit": any(row.prediction.fits is False for row in rows),
    }
    return f"it is the only candidate {' and '.join(words for words, holds in rules.items() if holds)}".rstrip()


def behind(pick: CandidateReport, top: CandidateReport) -> str:
    """Return why a pick that is slower than another one by more than the tolerance was made all the same."""
    gap = show_share(top.rate / pick.rate - 1)
    saved = saved_bytes(pick, [top])
    if overlap(pick, top) and saved is not None and saved > 0:
        return (
            f"it needs {show_bytes(saved)} less memory than {top.label}, which is estimated to be {gap} faster, and the"
            " steps do not tell the two apart"
        )
    return f"the search picked it, although by the figures in this table {top.label} is {gap} faster"


def overlap(one: CandidateReport, other: CandidateReport) -> bool:
    """Return True where the 90 % intervals of two estimates, per sequence, have times in common."""
    if one.estimate is None or other.estimate is None:
        return False
    mine, theirs = (
        (row.estimate.step_time_low_s / row.sequences, row.estimate.step_time_high_s / row.sequences)
        for row in (one, other)
        if row.estimate is not None
    )
    return mine[0] <= theirs[1] and theirs[0] <= mine[1]


def leanest(rows: Rows, pick: int, top: int, close: Sequence[int], tolerance: float) -> str:
    """Return the reason where memory is the objective; ``close``: the others that are fast enough."""
    lag = 1 - rows[pick].rate / rows[top].rate
    speed = f"only {show_share(lag)} slower than {rows[top].label}" if pick != top else "the fastest as well"
    within = f"within {show_share(tolerance, 0)} of the best"
    saved = saved_bytes(rows[pick], [rows[index] for index in close])
    if close and (saved is None or saved < 0):
        return f"the search picked it of those {within}; it is {speed}"
    return f"it needs the least memory of those {within}, and is {speed}"


def saved_bytes(row: CandidateReport, others: Rows) -> int | None:
    """Return the bytes between the row's peak and the leanest of the others; None where memory is not known."""
    peaks = [other.peak for other in others if other.peak is not None]
    return min(peaks) - row.peak if peaks and row.peak is not None else None


def ties(rows: Rows, pick: int, tolerance: float) -> tuple[str, ...]:
    """Return ``m = 16 and m = 32 are within 1%; 16 needs 1.2 GiB less.``, one for each that is tied with the pick."""
    texts = []
    mine = rows[pick]
    for index in contenders(rows):
        other = rows[index]
        if index == pick or abs(1 - min(mine.rate, other.rate) / max(mine.rate, other.rate)) > tolerance:
            continue
        is_alike = mine.family == other.family
        names = [f"m = {row.micro_batches}" if is_alike else row.label for row in (mine, other)]
        saved = saved_bytes(mine, [other])
        first = str(mine.micro_batches) if is_alike else names[0]
        rest = f"; {first} needs {show_bytes(abs(saved))} {'less' if saved > 0 else 'more'}" if saved else ""
        texts.append(f"{names[0]} and {names[1]} are within {show_share(tolerance, 0)}{rest}.")
    return tuple(texts)


def curve(rows: Rows, pick: int, indices: Sequence[int]) -> list[int]:
    """Return those of ``indices`` that differ from the pick in m alone, ascending in m, and what stands in for its
    schedule where m is too small for that."""
    own = rows[pick].family
    same = [index for index in indices if rows[index].family == own]
    least = min((rows[index].micro_batches for index in same), default=inf)
    if stand_in := own.stand_in:
        same += [i for i in indices if rows[i].family == stand_in and rows[i].micro_batches < least]
    return sorted(same, key=lambda index: rows[index].micro_batches)


def knee(rows: Rows, pick: int) -> KneeReport:
    """Return the smallest m within KNEE_TOLERANCE of the best of the pick's curve, and one step to either side."""
    along = curve(rows, pick, [index for index, row in enumerate(rows) if row.may_win or index == pick])
    best = max(rows[index].rate for index in along)
    at = next(place for place, index in enumerate(along) if rows[index].rate >= best * (1 - KNEE_TOLERANCE))

    def neighbour(place: int) -> Neighbour | None:
        if not 0 <= place < len(along):
            return None
        row = rows[along[place]]
        return Neighbour(
            candidate=along[place],
            micro_batches=row.micro_batches,
            loss=1 - row.rate / best,
            source=row.source,
        )

    middle = neighbour(at)
    assert middle is not None
    return KneeReport(at=middle, fewer=neighbour(at - 1), more=neighbour(at + 1))


def pareto_front(rows: Rows) -> tuple[ParetoPoint, ...]:
    """Return the candidates that no other one that may win beats in throughput and peak memory, the leanest first."""
    known = [(row.peak, -row.rate, index) for index, row in enumerate(rows) if row.may_win and row.peak is not None]
    front: list[ParetoPoint] = []
    for peak, rate, index in sorted(known):
        if not front or -rate > front[-1].throughput_seq_s:
            point = ParetoPoint(
                candidate=index, throughput_seq_s=-rate, peak_memory_bytes=peak, source=rows[index].source
            )
            front.append(point)
    return tuple(front)


def loses_to(row: CandidateReport, winner: CandidateReport) -> str | None:
    """Return what a slower candidate loses most to, as its predicted time per sequence splits; None of a faster one."""
    if row.measurement is None or row.rate >= winner.rate:
        return None
    losses: dict[str, float] = {}
    for part, seconds in row.prediction.time_split_s.model_dump().items():
        name = GRANULARITY.get(part, part)
        theirs = getattr(winner.prediction.time_split_s, part) / winner.sequences
        losses[name] = losses.get(name, 0.0) + seconds / row.sequences - theirs
    return max(losses, key=lambda name: losses[name])
