"""What runs made elsewhere have taught, as a report: that of ``autotune fit`` and, with one run more, of ``tell``."""

from collections.abc import Sequence

from autotune.plan.fit.fit import Fitted, within_reach
from autotune.records.job.workload import WorkloadFacts
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate, Prediction
from autotune.records.report import CandidateReport, Report, candidate_report
from autotune.records.timed_run import TimedRun
from autotune.records.verdict import Estimate
from autotune.report.paper.predicted import as_report
from autotune.report.units import counted, show_share

FAR = "too far from the sizes that ran"


def fitted_report(
    fitted: Fitted,
    facts: WorkloadFacts,
    runs: Sequence[TimedRun],
    memory_limit: int | None,
    notes: Sequence[str] = (),
    command: str | None = None,
) -> Report:
    """Return the report of what was fitted to ``runs``. ``notes``: how they were read, in words."""
    rows = [fitted_row(candidate, told, facts, runs) for candidate, told in fitted.pairs]
    report = as_report(
        fitted.profiles[0],
        rows,
        fitted.verdict,
        memory_limit,
        (*notes, *next_note(fitted)),
        command,
        why=f"it is fitted to {counted(len(runs), 'run')} made elsewhere",
    )
    return report.model_copy(update={"virtual_profiles": fitted.profiles[1:], "timed_runs": tuple(runs)})


def fitted_row(
    candidate: Candidate, told: Prediction, facts: WorkloadFacts, runs: Sequence[TimedRun]
) -> CandidateReport:
    """Return a candidate's row: what is fitted is both its prediction and, within reach of the runs, its estimate."""
    measured = measurement(candidate, facts, [run for run in runs if run.candidate == candidate])
    is_near = within_reach(candidate, runs)
    row = candidate_report(candidate, told, measured, None if is_near else FAR)
    estimate = Estimate(
        step_time_s=told.step_time_s,
        step_time_low_s=told.step_time_low_s,
        step_time_high_s=told.step_time_high_s,
        throughput_seq_s=told.throughput_seq_s,
    )
    return row.model_copy(update={"estimate": estimate if is_near else None})


def measurement(candidate: Candidate, facts: WorkloadFacts, runs: Sequence[TimedRun]) -> Measurement | None:
    """Return what the runs of one candidate showed, a step for each; None where none was made."""
    if not runs:
        return None
    peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes and len(run.peak_memory_bytes) > 1]
    return Measurement.of(
        tuple(run.step_time_s for run in runs),
        candidate.sequences,
        facts.seq_len,
        peak_memory_bytes=peaks[0] if peaks else None,
    )


def next_note(fitted: Fitted) -> list[str]:
    """Return which candidate is worth a run next, and what it may gain."""
    if fitted.next is None:
        return ["no other candidate is expected to gain enough to be worth a run"]
    candidate, told = fitted.pairs[fitted.next]
    ran = [one for one in fitted.pairs if one[1].basis == "measured"]
    known = max((one[1].throughput_seq_s for one in ran), default=0.0)
    gain = candidate.sequences / told.step_time_low_s / known - 1 if known else 0.0
    hope = f", because it could be up to {show_share(gain, 0)} faster than the best that ran" if gain > 0 else ""
    return [f"try m = {candidate.micro_batches} of b = {candidate.micro_batch_size} next{hope}"]
