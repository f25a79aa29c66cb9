"""What a search learns where there is no profile: predictions and a prior for its belief, from whole steps alone.

Before the first trial nothing is known but shapes; the first one sets the scale. From then on the belief holds the
shapes of ``plan.fit`` as its prior and sees every timing once; the report states what is fitted to all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.plan.fit.curve import learn
from autotune.plan.fit.fit import Fitted, fit
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


def with_open_scale(prior: Prior) -> Prior:
    """Return a prior that knows shapes but not how fast the machine is: that of predictions made for another one."""
    return replace(prior, covariance=prior.covariance + SCALE_ONLY**2)


@dataclass(frozen=True)
class Learner:
    """The candidates of a job, and what is known of it."""

    facts: WorkloadFacts
    candidates: Sequence[Candidate]
    memory_limit: int | None

    @property
    def first(self) -> Candidate:
        """The candidate to begin with: among those that fill the pipeline the middle one, because runs to either side
        then tell most."""
        stages = self.facts.stages or 1
        filling = [one for one in self.candidates if one.micro_batches >= stages] or list(self.candidates)
        return filling[len(filling) // 2]

    def nominal(self) -> Fitted:
        """Return what is said of candidates before any has run."""
        return fit(self.facts, [self.run(self.first, NOMINAL_STEP_S)], self.candidates, self.memory_limit)

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
        return fit(self.facts, runs, self.candidates, self.memory_limit) if runs else self.nominal()

    def believed(self, outcomes: Mapping[Candidate, Outcome]) -> tuple[dict[Candidate, Prediction], Prior]:
        """Return predictions at the scale of the first measurement, and the prior of a belief that then sees it and all
        others: shapes and their covariance, the scale left open."""
        measured = {one: found for one, found in outcomes.items() if isinstance(found, Measurement)}
        first, seconds = next(
            ((one, found.step_time_s) for one, found in measured.items()), (self.first, NOMINAL_STEP_S)
        )
        predictions = dict(fit(self.facts, [self.run(first, seconds)], self.candidates, self.memory_limit).pairs)
        open_scale = learn(self.facts.stages or 1, [self.run(first, seconds, SCALE_ONLY)], self.candidates)
        logs = np.log(open_scale.draws()[0])
        steps = np.array([one.step_time_s for one in predictions.values()])
        prior = Prior(
            log_step=np.log(steps),
            covariance=np.atleast_2d(np.cov(logs.T)),
            moment=open_scale.noise,
            visit_s=float(3 * steps.min()) + (READY_S if measured else STARTING_S),
            missed=min(MOST_MISSED, MISSED / len(steps)),
        )
        return predictions, prior
