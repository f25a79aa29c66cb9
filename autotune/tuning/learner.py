"""What a search learns where there is no profile: predictions and a prior for its belief, from whole steps alone.

Before the first trial nothing is known but shapes; the first one sets the scale. From then on the belief holds the
shapes of ``plan.fit`` as its prior and sees every timing once; the report states what is fitted to all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from autotune.plan.fit.curve import learn
from autotune.plan.fit.fit import Fitted, fit
from autotune.predict.choice import choose
from autotune.records.job.workload import WorkloadFacts
from autotune.records.outcome import Measurement, Outcome
from autotune.records.prediction import Candidate, Prediction
from autotune.records.timed_run import TimedRun
from autotune.search.belief.prior import MISSED, MOST_MISSED, READY_S, Prior

NOMINAL_STEP_S = 10.0
"""Seconds of a step before any was seen."""
SCALE_ONLY = 1.0
"""Relative standard error of a run that tells little more than the scale."""
STARTING_S = 15.0
"""Seconds that a command is taken to need until its first step, before any was seen."""


def unsure_of(told: Prediction) -> float:
    """Return the relative standard deviation of what a prediction says of a candidate beside others."""
    errors = told.uncertainty
    return float(np.sqrt(errors.own**2 + errors.overhead**2 + errors.placement**2))


def with_open_scale(prior: Prior) -> Prior:
    """Return a prior that knows shapes but not how fast the machine is: that of predictions made for another one."""
    return replace(prior, covariance=prior.covariance + SCALE_ONLY**2)


@dataclass(frozen=True)
class Learner:
    """The candidates of a job, and what is known of it. ``expected``: what a profile of the user's predicts of each
    candidate, in their order, which is believed but for the speed of the machine; None where there is no profile."""

    facts: WorkloadFacts
    candidates: Sequence[Candidate]
    memory_limit: int | None
    expected: Sequence[Prediction] | None = None

    @property
    def first(self) -> Candidate:
        """The candidate to begin with: the best by the profile, else among those that fill the pipeline the middle one,
        because runs to either side then tell most."""
        if self.expected is not None:
            best = choose(list(zip(self.candidates, self.expected, strict=True))).pick
            return self.candidates[best or 0]
        stages = self.facts.stages or 1
        filling = [one for one in self.candidates if one.micro_batches >= stages] or list(self.candidates)
        return filling[len(filling) // 2]

    def nominal(self) -> Fitted:
        """Return what is said of candidates before any has run."""
        first = self.first
        runs = [self.run(first, self.expected_step_s(first))]
        return fit(self.facts, runs, self.candidates, self.memory_limit, self.prior(runs))

    def expected_step_s(self, candidate: Candidate) -> float:
        """Return the seconds that a step is taken to need before any was seen."""
        if self.expected is None:
            return NOMINAL_STEP_S
        return self.expected[self.candidates.index(candidate)].step_time_s

    def prior(self, runs: Sequence[TimedRun]) -> list[TimedRun]:
        """Return what the profile says of every candidate, as runs at the pace of the ``runs`` that were made; none
        where there is no profile."""
        if self.expected is None:
            return []
        pace = median(run.step_time_s / self.expected_step_s(run.candidate) for run in runs)
        return [
            self.run(one, pace * told.step_time_s, unsure_of(told)).model_copy(
                update={"peak_memory_bytes": told.peak_memory_bytes}
            )
            for one, told in zip(self.candidates, self.expected, strict=True)
        ]

    def run(self, candidate: Candidate, step_time_s: float, standard_error: float = 0.0) -> TimedRun:
        """Return a candidate's step as a run."""
        return TimedRun(
            micro_batches=candidate.micro_batches,
            micro_batch_size=candidate.micro_batch_size,
            step_time_s=step_time_s,
            standard_error=standard_error,
            schedule=candidate.schedule,
            virtual_stages=candidate.virtual_stages,
        )

    def fitted(self, outcomes: Mapping[Candidate, Outcome]) -> Fitted:
        """Return what the measurements so far teach."""
        runs = [
            self.run(one, outcome.step_time_s).model_copy(update={"peak_memory_bytes": outcome.peak_memory_bytes})
            for one, outcome in outcomes.items()
            if isinstance(outcome, Measurement)
        ]
        if not runs:
            return self.nominal()
        return fit(self.facts, runs, self.candidates, self.memory_limit, self.prior(runs))

    def believed(self, outcomes: Mapping[Candidate, Outcome]) -> tuple[dict[Candidate, Prediction], Prior]:
        """Return predictions at the scale of the first measurement, and the prior of a belief that then sees it and all
        others: shapes and their covariance, the scale left open."""
        measured = {one: found for one, found in outcomes.items() if isinstance(found, Measurement)}
        first, seconds = next(
            ((one, found.step_time_s) for one, found in measured.items()),
            (self.first, self.expected_step_s(self.first)),
        )
        run = self.run(first, seconds)
        prior_runs = self.prior([run])
        predictions = dict(fit(self.facts, [run], self.candidates, self.memory_limit, prior_runs).pairs)
        open_scale = learn(self.facts.stages or 1, [self.run(first, seconds, SCALE_ONLY), *prior_runs], self.candidates)
        logs = np.log(open_scale.draws()[0])
        steps = np.array([one.step_time_s for one in predictions.values()])
        is_pinned = self.expected is not None  # by what the profile says, whose machine is another one
        prior = Prior(
            log_step=np.log(steps),
            covariance=np.atleast_2d(np.cov(logs.T)) + (SCALE_ONLY**2 if is_pinned else 0.0),
            moment=open_scale.noise,
            visit_s=float(3 * steps.min()) + (READY_S if measured else STARTING_S),
            missed=min(MOST_MISSED, MISSED / len(steps)),
        )
        return predictions, prior
