"""The runner: the only one who times anything. It asks what is worth its time, has it measured, and keeps it.

::

    first proposal -> m = 1, the baseline -> whatever is worth its time ... -> nothing is: stop
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import log
from typing import TYPE_CHECKING

from autotune.config import SamplerName
from autotune.events import Events
from autotune.records.failure import Failure
from autotune.records.outcome import KeepGoing, Measurement, Outcome
from autotune.records.prediction import Candidate, Prediction
from autotune.records.verdict import Stop, StopReason
from autotune.search.belief.belief import Belief
from autotune.search.belief.prior import Prior
from autotune.search.choose import most_promising, pick
from autotune.search.decide import Kind, Situation, decide
from autotune.search.failures import common_fault, what_follows, why_nothing
from autotune.search.goal import LEAST_STEPS, STEPS, Limits
from autotune.search.preparation import Preparation
from autotune.search.state import SearchState, over_limit
from autotune.search.study.sampler import make_sampler
from autotune.search.study.study import Study
from autotune.search.study.take_over import catch_up, predict_again, take_over
from autotune.search.timing import Timing, wall_clock

if TYPE_CHECKING:
    from optuna.trial import Trial

POLL_S = 1.0  # between looks at what other controllers have measured
DOUBTFUL, LOOKS = 0.5, 3  # probability that all visits to the pick were disturbed; visits that are enough
NOTICEABLE = 0.05  # log; a change of the machine's speed that is told

Measure = Callable[[Candidate, float, int, KeepGoing], Outcome]
"""(candidate, its predicted seconds of a step, timed steps, keep going?) -> what a real run of it ends as."""

Learn = Callable[[dict[Candidate, Outcome]], tuple[dict[Candidate, Prediction], Prior]]


@dataclass
class Runner:
    """``state`` holds what is known, ``belief`` what that means, ``study`` keeps it, ``measure`` runs a candidate.

    ``on_outcome`` is called whenever more is known. ``has_baseline``: m = 1 is measured in any case, and what the user
    runs now. ``first``: the candidate to begin with. ``learn``: called with the outcomes until one is a measurement,
    for predictions and a prior at its scale; None where predictions hold from the beginning.
    """

    state: SearchState
    study: Study
    measure: Measure
    limits: Limits
    events: Events
    on_outcome: Callable[["Runner"], None]
    sampler: SamplerName = "cost-model"
    has_baseline: bool = True
    seed: int = 0
    first: Candidate | None = None
    learn: Learn | None = None
    clock: Callable[[], float] = field(default_factory=wall_clock)

    def __post_init__(self) -> None:
        self.state.here = self.study.controller
        self.belief = Belief(self.state.predictions, self.study.controller)
        self.learns_scale = self.learn is not None
        self.learn_scale()
        self.started_s = self.clock()
        self.told_speed = 0.0  # log, beside the usual, as it was last told
        self.preparation = Preparation()

    # -- the loop -----------------------------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return self.clock() - self.started_s

    @property
    def is_out_of_time(self) -> bool:
        """True when the budget is used up."""
        return self.limits.budget_s is not None and self.elapsed_s > self.limits.budget_s

    @property
    def is_out_of_trials(self) -> bool:
        """True when as many trials were run as may be."""
        return self.limits.trials is not None and self.state.trials >= self.limits.trials

    def run(self) -> None:
        """Take over what an earlier run measured, then time candidates until nothing is worth its time."""
        self.started_s = self.clock()
        self.study.use(make_sampler(self.sampler, self.study.space, self.seed, lambda: self.state.untried))
        take_over(self.state, self.belief, self.study)
        self.learn_scale()
        while True:
            if catch_up(self.state, self.belief, self.study):
                self.on_outcome(self)
            action = self.next()
            if isinstance(action, Candidate):
                self.visit(action)
            elif not self.waits_for_others(action):
                self.state.stop = action
                return

    def next(self) -> Candidate | Stop:
        """Return the candidate to time next, or why there is none."""
        state, limits = self.state, self.limits
        if shared := common_fault(state):
            return Stop(reason=StopReason.SAME_FAILURE, message=shared.message)
        if self.is_out_of_time:
            return Stop(reason=StopReason.BUDGET, limit=limits.budget_s)
        untried, ran = state.untried, state.contenders
        if self.first in untried and not state.outcomes:
            return self.first
        wanted = self.decided([*untried, *ran])
        if limits.exhaustive and untried:
            wanted = self.decided(untried) or most_promising(self.belief, untried)
        if self.has_baseline and state.measured:
            wanted = state.reference() or wanted
        if untried and self.is_out_of_trials:
            wanted = self.decided(ran)
            return self.linked(wanted) if wanted else self.finished(Stop(reason=StopReason.TRIALS, limit=limits.trials))
        return self.linked(wanted) if wanted else self.finished(Stop(reason=why_nothing(self.state)))

    def decided(self, may_visit: list[Candidate]) -> Candidate | None:
        """Return which of ``may_visit`` is worth its time."""
        return decide(self.belief, self.state.goal, self.situation(may_visit)).candidate

    def situation(self, may_visit: list[Candidate], is_there: bool = False) -> Situation:
        """Return what a decision is made from, beside the belief."""
        state, peaks = self.state, {}
        if state.goal.objective == "memory":
            peaks = {candidate: state.peak(candidate) for candidate in state.predictions}
        return Situation(set(state.may_win), set(may_visit), self.preparation.expected_s, self.clock(), is_there, peaks)

    def finished(self, stop: Stop) -> Candidate | Stop:
        """Return ``stop``, or the pick where it must be timed again: after one step alone, or where all visits to it
        are likely to have been disturbed."""
        winner = self.pick()
        if winner is None:
            return stop
        visits = list(self.state.visits(winner))
        is_little = sum(len(one.step_times_s) for one in visits) < LEAST_STEPS
        is_doubtful = self.belief.chance_disturbed(winner) > DOUBTFUL and len(visits) < LOOKS
        return winner if is_little or is_doubtful else stop

    def linked(self, wanted: Candidate) -> Candidate:
        """Return ``wanted``, but first the best of what was timed in an earlier run or on another machine, so that the
        two can be compared."""
        state = self.state
        is_begun = any(one.machine == state.here and one.session == state.session for one in state.timings)
        best = None if is_begun else self.pick()
        return best or wanted

    def pick(self, running: Candidate | None = None) -> Candidate | None:
        """Return the winner as things stand, the candidate that is ``running`` now included."""
        contenders = {*self.state.contenders, *([running] if running else [])}
        if not contenders:
            return None
        estimates = self.belief.estimates()
        rates = {candidate: estimates[candidate].throughput_seq_s for candidate in contenders}
        return pick(rates, {candidate: self.state.peak(candidate) for candidate in contenders}, self.state.goal)

    # -- a visit ------------------------------------------------------------------------------------------------------

    def visit(self, candidate: Candidate) -> None:
        """Time a candidate: a trial where it has not run yet."""
        if candidate in self.state.untried:
            self.run_trial(candidate)
            return
        self.events.progress(f"checking for drift: timing {candidate.label} again")
        outcome, timing = self.time_steps(candidate, lambda number, seconds: True)
        if isinstance(outcome, Failure):
            self.events.warn(f"{candidate.label} ran before, but failed when it was timed again: {outcome.message}")
        elif timing is not None:
            self.study.keep(timing)
            self.take_in(candidate, None, timing)

    def run_trial(self, candidate: Candidate) -> None:
        """Run a trial of ``candidate``, or of what a sampler of Optuna's proposes; nothing where another controller was
        faster to claim it."""
        state = self.state
        wanted = candidate if self.sampler == "cost-model" or candidate == state.reference() else None
        claimed = self.study.begin(wanted, state.memory_limit)
        if claimed is None:
            return
        candidate, trial = claimed
        state.trials += 1
        self.events.progress(f"{candidate.label}: first step, untimed")
        outcome, timing = self.time_steps(candidate, partial(self.note_step, candidate, trial))
        over = over_limit(state.predictions[candidate], outcome, state.memory_limit)
        is_ours = self.study.finish(trial, outcome, timing, over, state.memory_limit)
        if not is_ours:
            self.events.warn(
                f"the trial of {candidate.label} was handed on to others while it ran: this controller gave no sign of"
                " life for too long; give a longer --heartbeat"
            )
            if timing is not None:
                self.study.keep(timing)
        self.take_in(candidate, outcome if is_ours else None, timing)

    def note_step(self, candidate: Candidate, trial: "Trial", number: int, seconds: float) -> bool:
        """Keep a timed step of a trial; return whether the trial is still ours."""
        self.events.step(candidate.label, number + 1, seconds)
        return self.study.note_step(trial, candidate.job_sequences / seconds, number)

    def time_steps(self, candidate: Candidate, note: Callable[[int, float], bool]) -> tuple[Outcome, Timing | None]:
        """Time as many steps of a candidate as are worth their time; ``note`` says of each whether to go on at all."""
        state, belief, clock = self.state, self.belief, self.clock
        is_whole = self.limits.exhaustive and candidate in state.untried
        times: list[float] = []
        moments: list[float] = []  # when the timed steps began; the middle of them
        begun_s = clock()
        belief.begin(candidate, state.here, state.session)

        def keep_going(number: int, seconds: float) -> bool:
            now = clock()
            times.append(seconds)
            moments.append(now - seconds)
            belief.see(seconds, (moments[0] + now) / 2)
            if not note(number, seconds) or number == STEPS - 1 or self.is_out_of_time:
                return False
            return is_whole or self.decided_to_stay(candidate, len(times))

        outcome: Outcome | None = None
        try:
            outcome = self.measure(candidate, state.predictions[candidate].step_time_s, STEPS, keep_going)
        finally:
            if not isinstance(outcome, Measurement):
                belief.abandon()
        state.real_steps += 1 + len(times)
        if isinstance(outcome, Failure):
            return outcome, None
        ready_s = max(0.0, moments[0] - begun_s - times[0])
        self.preparation.note(candidate, ready_s)
        number = 1 + max((one.number for one in state.timings if one.machine == state.here), default=-1)
        at_s = float(belief.visits.at_s[-1])
        return outcome, Timing(number, candidate, tuple(times), at_s, state.here, state.session, ready_s)

    def decided_to_stay(self, candidate: Candidate, steps: int) -> bool:
        """Return whether another step of the visit that is going on is worth its time; where nothing else is, the
        second step of the candidate that is recommended then."""
        state = self.state
        may_visit = [*state.untried, *state.contenders]
        action = decide(self.belief, state.goal, self.situation(may_visit, is_there=True))
        if action.kind is not Kind.STOP:
            return action.kind is Kind.STAY
        steps += sum(len(one.step_times_s) for one in state.visits(candidate))
        return steps < LEAST_STEPS and self.pick(candidate) == candidate

    # -- what became known --------------------------------------------------------------------------------------------

    def take_in(self, candidate: Candidate, outcome: Outcome | None, timing: Timing | None) -> None:
        """Note what a visit of ours has shown; the belief has seen its steps already."""
        was_accident = candidate in self.state.accidents
        self.state.add(candidate, outcome, timing)
        if isinstance(outcome, Failure):
            if told := what_follows(self.state, candidate, outcome, was_accident):
                self.events.warn(told)
        elif timing is not None:
            self.tell_drift()
        self.learn_scale()
        predict_again(self.state, self.belief)
        self.on_outcome(self)

    def learn_scale(self) -> None:
        """Begin the belief again with the scale of the first measurement; what was timed so far is seen anew."""
        if self.learn is None or not self.learns_scale:
            return
        predictions, prior = self.learn(self.state.outcomes)
        self.state.predictions.update(predictions)
        self.belief = Belief(self.state.predictions, self.study.controller, prior)
        for timing in self.state.timings:
            self.belief.add(timing)
        self.learns_scale = not self.state.measured

    def tell_drift(self) -> None:
        """Tell where the machine's speed is noticeably another one than it was last told to be."""
        speed = log(self.belief.speed_factors()[-1])
        if abs(speed - self.told_speed) > NOTICEABLE:
            self.told_speed = speed
            self.events.warn(
                f"the machine drifted: steps take {self.belief.speed_factors()[-1]:.2f} times as long as usual;"
                " candidates are compared with that taken into account"
            )

    def waits_for_others(self, stop: Stop) -> bool:
        """Wait a moment for what other controllers are running now; return False where that is not to be waited for."""
        running = sorted(candidate.label for candidate in self.state.elsewhere & set(self.state.allowed))
        if not running or stop.reason in (StopReason.BUDGET, StopReason.TRIALS, StopReason.SAME_FAILURE):
            return False
        self.events.progress(f"waiting for another controller's trial of {', '.join(running)}")
        time.sleep(POLL_S)
        return True
