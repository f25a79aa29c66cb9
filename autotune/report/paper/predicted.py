"""A prediction as a report: what ``show``, ``export``, ``ramp``, ``check`` and the page take, marked as predicted."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from autotune import __version__
from autotune.identity import digest_of_report
from autotune.predict.choice import Pairs, choose, next_to_time
from autotune.records.prediction import Basis
from autotune.records.profile import Profile
from autotune.records.report import CandidateReport, Report, candidate_report
from autotune.records.verdict import SearchReport, Verdict
from autotune.report.recommend import pareto_front, recommend, under_limit
from autotune.report.units import show_share

LONG_S = 2.0
"""Seconds of a forward of the smallest micro-batch from which on they look like milliseconds."""


def predicted_report(
    profile: Profile,
    pairs: Pairs,
    memory_limit: int | None,
    notes: Sequence[str] = (),
    command: str | None = None,
) -> Report:
    """Return the report of candidates that were only predicted. ``memory_limit``: bytes per rank; None is without
    limit. ``notes``: what the predictions rest on, in words."""
    verdict = choose(pairs)
    rows = [candidate_report(*pair, None, None) for pair in pairs]
    warnings = (*notes, *doubtful_units(profile), *extrapolation_notes(profile, pairs, verdict.pick))
    return as_report(profile, rows, verdict, memory_limit, warnings, command)


def as_report(
    profile: Profile,
    candidates: Sequence[CandidateReport],
    verdict: Verdict,
    memory_limit: int | None,
    warnings: Sequence[str],
    command: str | None,
    why: str = "nothing was run",
) -> Report:
    """Return the report of predictions and the verdict on them. ``why``: why no step was run."""
    rows = [under_limit(row, memory_limit) for row in candidates]
    found = recommend(rows, verdict, memory_limit)
    is_infeasible = all(row.prediction.fits is False for row in rows)
    facts = replace(profile.workload, stages=profile.ranks, batch=batch_of(rows, profile))
    return Report(
        kind="autotune.prediction",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        autotune_version=__version__,
        command=command,
        recommended=verdict.pick,
        status="infeasible" if is_infeasible else "complete" if found else "partial",
        fingerprint=digest_of_report(profile.environment, facts, __version__),
        environment=profile.environment,
        workload=facts,
        memory_limit_bytes=memory_limit,
        warnings=tuple(warnings),
        profile=profile,
        candidates=tuple(rows),
        sweet_spot=found,
        search=SearchReport(
            sampler="none",
            trials=0,
            real_steps=0,
            wall_s=0.0,
            stopped_because=why,
            tolerance=verdict.tolerance,
            pareto_front=pareto_front(rows),
        ),
    )


def batch_of(rows: Sequence[CandidateReport], profile: Profile) -> int:
    """Return the sequences of a step that were asked about; where these grow with m, the batch of the profile."""
    asked = {row.sequences for row in rows}
    return asked.pop() if len(asked) == 1 else profile.workload.batch or rows[0].sequences


def doubtful_units(profile: Profile) -> list[str]:
    """Return a warning where times look like milliseconds."""
    least = min(stage.time_s[0].t_f for stage in profile.stages)
    if least < LONG_S:
        return []
    return [
        f"stages[].time_s[].t_f is {least:g} s or more for the smallest micro-batch, which looks like milliseconds:"
        f" times in a profile are in seconds; divide them by 1000 if they are ({least / 1000:g})"
    ]


def extrapolation_notes(profile: Profile, pairs: Pairs, pick: int | None) -> list[str]:
    """Return which micro-batch sizes were not timed, what follows from that, and which one to time next."""
    sizes = sorted({c.micro_batch_size for c, prediction in pairs if prediction.basis is Basis.EXTRAPOLATED})
    if not sizes:
        return []
    timed = sorted({row.micro_batch_size for row in profile.stages[0].time_s})
    words = (
        f"micro-batches of {listed(sizes)} are outside of the sizes that were timed ({listed(timed)}): their figures"
        " are extrapolated, and none of them is recommended"
    )
    at = next_to_time(pairs, pick, timed[0])
    if at is None:
        return [f"{words}; none is expected to be better either"]
    candidate, prediction = pairs[at]
    hope = ""
    if pick is not None:
        gain = candidate.job_sequences / prediction.step_time_low_s / pairs[pick][1].throughput_seq_s - 1
        hope = f", because m = {candidate.micro_batches} could be up to {show_share(gain, 0)} faster"
    return [f"{words}; time b = {candidate.micro_batch_size} next{hope}"]


def listed(numbers: Sequence[int]) -> str:
    """Return ``1, 2 and 4``."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
