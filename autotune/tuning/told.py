"""A step that was made elsewhere, added to the report of a run or of a prediction: what the search would believe then.

The candidates' predictions are the prior, what ran is seen anew, the told step last; so the estimates, the pick and how
sure it is are those of a search that had timed it itself. Where nothing ran, nobody knows how fast the machine is on
which the step was made: the first one that is told sets the scale.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from autotune.errors import UsageError
from autotune.plan.fit.fit import Fitted
from autotune.predict.choice import choose_among, is_eligible
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from autotune.records.prediction import Candidate, Prediction
from autotune.records.report import CandidateReport, Report, candidate_report
from autotune.records.verdict import Estimate, Stop, StopReason, Verdict
from autotune.report.recommend import loses_to, pareto_front, recommend, under_limit
from autotune.report.units import show_seconds
from autotune.search.belief.belief import Belief
from autotune.search.belief.prior import prior_of
from autotune.search.choose import pick
from autotune.search.goal import TIE, Goal
from autotune.search.state import SearchState
from autotune.search.timing import Timing
from autotune.tuning.conclude import verdict_of
from autotune.tuning.learner import Learner, with_open_scale


class ToldStep(NamedTuple):
    """A step: m, and as far as needed the rest that tells candidates apart; its seconds; the peak of the fullest
    rank."""

    micro_batches: int
    seconds: float
    micro_batch_size: int | None = None
    schedule: str | None = None
    virtual_stages: int | None = None
    peak_memory_bytes: int | None = None

    def is_of(self, row: CandidateReport) -> bool:
        """Return whether nothing that is said speaks against this candidate."""
        given = {name: getattr(self, name) for name in ("micro_batch_size", "schedule", "virtual_stages")}
        is_alike = all(value is None or getattr(row, name) == value for name, value in given.items())
        return row.micro_batches == self.micro_batches and is_alike


def with_step(report: Report, step: ToldStep, command: str | None) -> Report:
    """Return the report with one real step more, and all that follows from it. Raises UsageError where it does not say
    of which candidate the step is."""
    at = index_of(report, step)
    rows = list(report.candidates)
    rows[at] = with_measurement(report, rows[at], step)
    learner, fitted = None, None
    if report.is_fitted:
        learner = Learner(report.workload, [row.candidate for row in rows], report.memory_limit_bytes)
        fitted = learner.fitted({row.candidate: row.measurement for row in rows if row.measurement})
    belief = belief_of(rows, report, step, rows[at].candidate, learner)
    found = verdict(report, rows, belief)
    made = told_rows(report, rows, belief.estimates(), fitted, found.pick)
    present = report.sweet_spot.present if report.sweet_spot else None
    note = f"a step of {rows[at].label} that was made elsewhere took {show_seconds(step.seconds)}"
    profiles = fitted.profiles if fitted else (report.profile, *report.virtual_profiles)
    return report.model_copy(
        update={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": report.command or command,
            "status": "complete" if found.pick is not None else report.status,
            "warnings": (*report.warnings, note),
            "profile": profiles[0],
            "virtual_profiles": tuple(profiles[1:]),
            "candidates": made,
            "recommended": found.pick,
            "sweet_spot": recommend(made, found, report.memory_limit_bytes, present),
            "search": report.search.model_copy(update={"pareto_front": pareto_front(made)}),
        }
    )


def index_of(report: Report, step: ToldStep) -> int:
    """Return the candidate that a step is of: of several the recommended one."""
    fitting = [at for at, row in enumerate(report.candidates) if step.is_of(row)]
    if not fitting:
        counts = ", ".join(map(str, sorted({row.micro_batches for row in report.candidates})))
        raise UsageError(
            f"tell: the report has no candidate with m = {step.micro_batches} and what else was given; its m are"
            f" {counts}: tell a step of one of its candidates"
        )
    if len(fitting) > 1 and report.recommended in fitting:
        return report.recommended
    if len(fitting) > 1:
        names = ", ".join(report.candidates[at].label for at in fitting)
        raise UsageError(f"tell: the step may be of {names}; say which with --schedule or --virtual-stages")
    return fitting[0]


def with_measurement(report: Report, row: CandidateReport, step: ToldStep) -> CandidateReport:
    """Return the candidate's row with the step among those that were timed."""
    before = row.measurement
    steps = before.step_times_s if before else ()
    kept = before.model_dump() if before else {}
    for name in ("step_times_s", "step_time_s", "throughput_seq_s", "throughput_tokens_s"):
        kept.pop(name, None)
    if step.peak_memory_bytes is not None:
        kept["peak_memory_bytes"] = (step.peak_memory_bytes,) * report.profile.ranks  # none is fuller
    seq_len = report.workload.seq_len
    measured = Measurement.of((*steps, step.seconds), row.sequences, seq_len, **kept)
    return row.model_copy(update={"measurement": measured, "failure": None, "excluded": None})


def belief_of(
    rows: Sequence[CandidateReport], report: Report, step: ToldStep, told: Candidate, learner: Learner | None
) -> Belief:
    """Return the belief after all that ran, at the machine's usual speed, and then the step that was told."""
    predictions: dict[Candidate, Prediction] = {row.candidate: row.prediction for row in rows}
    prior = with_open_scale(prior_of(predictions)) if report.is_predicted else None
    if learner is not None:
        predictions, prior = learner.believed({row.candidate: row.measurement for row in rows if row.measurement})
    belief = Belief(predictions, prior=prior)
    number = 0
    for row in report.candidates:
        if row.measurement is not None:
            usual = tuple(one / (row.pace or 1.0) for one in row.measurement.step_times_s)
            belief.add(Timing(number, row.candidate, usual, number * belief.prior.visit_s))
            number += 1
    belief.add(Timing(number, told, (step.seconds,), number * belief.prior.visit_s))
    return belief


def verdict(report: Report, rows: Sequence[CandidateReport], belief: Belief) -> Verdict:
    """Return the pick: of a run among those that ran, of a prediction among all that it may recommend."""
    if report.is_predicted:
        return predicted_verdict(rows, belief)
    goal = Goal(report.search.objective, report.search.tolerance or TIE)
    allowed = [row for row in rows if row.excluded is None]
    state = SearchState({row.candidate: row.prediction for row in allowed}, {}, goal, report.memory_limit_bytes)
    for row in allowed:
        outcome: Measurement | Failure | None = row.measurement or row.failure
        if outcome is not None:
            state.add(row.candidate, outcome)
    known = belief.estimates()
    rates = {one: known[one].throughput_seq_s for one in state.contenders}
    winner = pick(rates, {one: state.peak(one) for one in rates}, goal)
    index = {row.candidate: at for at, row in enumerate(rows)}
    return verdict_of(belief, state, winner, index, report.search.stop or Stop(reason=StopReason.DECIDED))


def predicted_verdict(rows: Sequence[CandidateReport], belief: Belief) -> Verdict:
    """Return the pick among predictions, at the estimates of the belief."""
    known, draws = belief.estimates(), belief.draws()
    rates = np.zeros((len(draws.log_rate), len(rows)))
    rates[:, draws.rows] = np.exp(draws.log_rate)
    pairs = [
        (one, row.prediction.model_copy(update={"throughput_seq_s": known[one].throughput_seq_s}))
        for row in rows
        for one in [row.candidate]
    ]
    may_win = [at for at, row in enumerate(rows) if row.measurement is not None or is_eligible(row.prediction)]
    return choose_among(pairs, may_win, rates)


def told_rows(
    report: Report,
    rows: Sequence[CandidateReport],
    known: dict[Candidate, Estimate],
    fitted: Fitted | None,
    pick: int | None,
) -> tuple[CandidateReport, ...]:
    """Return the rows with their estimates, and of a command's candidates the predictions that are fitted anew."""
    predictions = [told for _, told in fitted.pairs] if fitted else [row.prediction for row in rows]
    made = []
    for row, prediction in zip(rows, predictions, strict=True):
        fresh = candidate_report(row.candidate, prediction, row.measurement or row.failure, row.excluded)
        changes = {"prediction": prediction, "relative_error": fresh.relative_error, "estimate": known[row.candidate]}
        made.append(under_limit(row.model_copy(update=changes), report.memory_limit_bytes))
    if pick is None or report.is_predicted:
        return tuple(made)
    return tuple(row.model_copy(update={"loses_to": loses_to(row, made[pick])}) for row in made)
