"""The search: confirm as few candidates as honestly possible, best prospects first, and settle ties face to face.

::

    first proposal -> naive m = 1 -> whoever could still win ... -> final, in turns -> pick
                         |
                         `- a trial that surprises: the reference again. Is it the candidate, or the machine?
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import hypot, log, sqrt
from statistics import median

from autotune.config import SamplerName
from autotune.outcome import Failure, Measurement
from autotune.predict.record import Candidate, Prediction, Revision
from autotune.predict.revise import Estimate, revise
from autotune.search.choose import pick
from autotune.search.failures import common_fault, note_failure, rule_out
from autotune.search.final import hold_final
from autotune.search.noise import NOTICEABLE, step_noise
from autotune.search.others import catch_up, lose, meet, wait_for_others
from autotune.search.pace import check_pace, doubt
from autotune.search.prospects import Goal, Outlook, Standing, confidence, standing
from autotune.search.sampler import make_sampler
from autotune.search.space import show
from autotune.search.study import Study
from autotune.search.visits import STEPS, Visits

LEAST_STEPS = 2  # timed steps of a trial; as many more as it takes to know it well
WELL = 0.75  # of the tolerance; the final does the rest where it matters
ENOUGH_STEPS, OUT_OF_REACH = 3, 2.0  # timed steps where even STEPS of them leave so many times WELL open
BEHIND, BEHIND_AT_ONCE = 1.0, 2.0  # sigmas below the best beyond which further steps go to others; after one step
OF_A_VISIT = 0.5  # of what single passes of profiling differ by from moment to moment; a visit has several steps
UNEVEN = 5.0  # sigmas between the slowest and the fastest step of a visit

Measure = Callable[[Candidate, Prediction, int, Callable[[int, float], bool]], Measurement | Failure]
"""(candidate, its prediction, timed steps, keep going?) -> what a real run of it ends as."""


@dataclass
class Limits:
    """When to stop: seconds of trials, number of trials (None: no limit), or not before all candidates have run."""

    budget_s: float | None = None
    trials: int | None = None
    exhaustive: bool = False


@dataclass
class Search:
    """The state of a search.

    Profiling took ``profiled_s`` just before (0: it was not done now, or not on these ranks). ``outcomes`` maps the
    index of a candidate to what its real run ended as, ``revisions`` to the last prediction made before that;
    ``ruled_out`` says why a candidate is not tried after what others showed; those in ``accidents`` have lost a rank
    once, and while they are in ``second_chance`` they may be tried again. Where other controllers share the study,
    ``elsewhere`` are the candidates that they are running now, and ``met`` those of them whose machine was compared.
    """

    candidates: list[Candidate]
    predictions: list[Prediction]
    allowed: list[int]
    study: Study
    measure: Measure
    limits: Limits
    on_progress: Callable[[str], None]
    on_outcome: Callable[["Search"], None]
    on_warning: Callable[[str], None]
    goal: Goal = field(default_factory=Goal)
    sampler: SamplerName = "cost-model"
    memory_limit: int | None = None
    profiled_s: float = 0.0
    seed: int = 0
    outcomes: dict[int, Measurement | Failure] = field(default_factory=dict)
    revisions: dict[int, Revision] = field(default_factory=dict)
    ruled_out: dict[int, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    accidents: set[int] = field(default_factory=set)
    second_chance: set[int] = field(default_factory=set)
    elsewhere: set[int] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    visits: Visits = field(default_factory=Visits)
    trials: int = 0
    earlier_trials: int = 0
    real_steps: int = 0
    checks: int = 0
    cleared: list[float] = field(default_factory=list)
    stopped_because: str = ""
    final: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.started

    @property
    def is_out_of_time(self) -> bool:
        """Whether the budget is used up."""
        return self.limits.budget_s is not None and self.elapsed_s > self.limits.budget_s

    @property
    def is_out_of_trials(self) -> bool:
        """Whether as many trials were run as may be."""
        return self.limits.trials is not None and self.trials >= self.limits.trials

    @property
    def measured(self) -> dict[int, Measurement]:
        """The candidates that ran."""
        return {index: outcome for index, outcome in self.outcomes.items() if isinstance(outcome, Measurement)}

    @property
    def untried(self) -> list[int]:
        """The candidates that may be tried."""
        done = (self.outcomes.keys() - self.second_chance) | self.ruled_out.keys() | self.elsewhere
        return [index for index in self.allowed if index not in done]

    def standings(self) -> dict[int, Standing]:
        """Where each candidate stands that ran, may be tried and fits, at the machine's usual pace.

        By its own steps and by the model, which has learned from all: the noisier the steps, the more the model says.
        """
        estimates = self.visits.estimates()
        known = self.revised(estimates)
        return {
            index: standing(index, self.candidates[index], known[index], self.peak(index))
            for index in estimates
            if index in self.allowed and index in self.measured and (self.over_limit(index) or 0) <= 0
        }

    def rate(self, index: int) -> float:
        """Sequences per second of a candidate that ran, at the usual pace, by its own steps alone."""
        return self.candidates[index].sequences / self.visits.estimate(index).step_time_s

    def predicted_standings(self) -> dict[int, Standing]:
        """Where each candidate would stand that may be tried."""
        return {
            index: standing(index, self.candidates[index], self.revisions[index], self.peak(index))
            for index in self.untried
        }

    def peak(self, index: int) -> int | None:
        """Bytes of the fullest rank, measured where it ran, else predicted; of every candidate alike."""
        outcome = self.outcomes.get(index)
        own = outcome.peak_memory_bytes if isinstance(outcome, Measurement) else None
        peaks = own or self.predictions[index].peak_memory_bytes
        return max(peaks) if peaks else None

    def outlook(self) -> Outlook:
        """What is known when the next trial is chosen."""
        return Outlook(self.candidates, self.goal, self.predicted_standings(), self.standings())

    def pick(self) -> int | None:
        """The winner as things stand."""
        return pick(self.standings(), self.goal)

    def confidence(self, is_of_measured: bool = False) -> float:
        """The probability that the pick is within the tolerance of the best, of all or of those that ran."""
        winner, standings = self.pick(), self.standings()
        others = {} if is_of_measured else self.predicted_standings()
        return confidence(winner, others | standings, self.goal.tolerance) if winner is not None else 0.0

    def run(self) -> None:
        """Takes over what an earlier run measured, then runs trials until nothing can win, then the final."""
        self.resume()
        self.study.use(make_sampler(self.sampler, self.study.space, self.seed, self.outlook), self.goal.gain)
        if self.visits.unjudged is not None:
            doubt(self, self.visits.unjudged)
        earlier = self.reference()
        while True:
            catch_up(self)
            if not self.goes_on():
                if wait_for_others(self):
                    continue
                break
            if earlier is not None:
                check_pace(self, earlier)  # another day, another pace
                earlier = None
            meet(self)
            self.try_candidate(self.naive() if self.measured else None)
        hold_final(self)

    def resume(self) -> None:
        """Takes over the outcomes and visits of earlier runs of this study, and of other controllers."""
        self.revisions = dict(enumerate(self.revised({})))
        self.visits = self.study.visits()
        moment = max(prediction.uncertainty.moment for prediction in self.predictions)
        self.visits.prior = max(self.visits.prior, OF_A_VISIT * moment)
        self.visits.profiled_s = self.profiled_s
        self.take_over(self.study.finished(self.memory_limit))

    def take_over(self, outcomes: Mapping[int, Measurement | Failure]) -> None:
        """Takes over outcomes that were not seen on these ranks in this run."""
        self.outcomes |= outcomes
        self.earlier_trials += len(outcomes)
        for index, outcome in outcomes.items():
            self.second_chance.discard(index)
            if isinstance(outcome, Failure):
                if outcome.kind == "out_of_memory":
                    rule_out(self, index, outcome)
            else:
                self.merge(index)
        self.learn()

    def goes_on(self) -> bool:
        """Whether another trial is worth its steps; if not, ``stopped_because`` says why."""
        outlook = self.outlook()
        if shared := common_fault(self):
            self.stopped_because = f"all {len(self.failures)} trials failed alike: {shared.message}"
        elif not outlook.open:
            is_done = all(index in self.measured for index in self.allowed)
            self.stopped_because = "every candidate was measured" if is_done else "no candidate is left to try"
        elif self.is_out_of_trials:
            self.stopped_because = f"the limit of {self.limits.trials} trials"
        elif self.is_out_of_time:
            self.stopped_because = f"the budget of {self.limits.budget_s:g} s"
        elif self.limits.exhaustive or self.naive() is not None or outlook.is_open:
            self.stopped_because = ""
            return True
        elif self.goal.objective == "memory":
            self.stopped_because = "no other candidate can be leaner and fast enough, given the errors seen"
        else:
            self.stopped_because = (
                f"no other candidate can beat the best by more than {100 * self.goal.gain:.2g} %, given the errors seen"
            )
        return False

    def naive(self) -> int | None:
        """The candidate that does not pipeline, m = 1, if it is still to be tried: it shows what pipelining buys."""
        if any(self.candidates[index].micro_batches == 1 for index in self.measured):
            return None
        ones = [index for index in self.untried if self.candidates[index].micro_batches == 1]
        return min(ones, key=lambda index: self.candidates[index].virtual_stages, default=None)

    def learn(self) -> None:
        """Predicts again what was not measured, with what was."""
        self.visits.place_profile([prediction.step_time_s for prediction in self.predictions])
        for index, revision in enumerate(self.revised(self.visits.estimates())):
            if index not in self.outcomes:
                self.revisions[index] = revision

    def revised(self, measured: Mapping[int, Estimate]) -> list[Revision]:
        """Every prediction after what was ``measured``."""
        return revise(self.predictions, measured, [candidate.placement for candidate in self.candidates])

    def try_candidate(self, wanted: int | None) -> None:
        """One trial, of the candidate ``wanted`` or of whichever the sampler proposes."""
        claimed = self.study.begin(self.candidates[wanted] if wanted is not None else None, self.memory_limit)
        if claimed is None:
            return
        index, trial = claimed
        candidate, pace = self.candidates[index], self.visits.pace
        is_hopeless = bool(self.measured) and not self.outlook().could_win(index)
        times: list[float] = []
        is_pruned = False

        def keep_going(number: int, seconds: float) -> bool:
            nonlocal is_pruned
            times.append(seconds)
            is_ours = self.study.note_step(trial, candidate.sequences / seconds * pace, number)
            self.on_progress(f"{show(candidate)}: step {number + 1}, {seconds:.3f} s")
            if number == STEPS - 1 or self.is_out_of_time or not is_ours:
                return False
            if self.limits.exhaustive or not self.is_even(times):
                return True
            # One step, which something else may have disturbed, is enough where the model says the same.
            is_pruned = (len(times) >= LEAST_STEPS or is_hopeless) and trial.should_prune()
            return not is_pruned and not self.is_known_well(times) and not self.is_behind(index, times)

        self.trials += 1
        self.second_chance.discard(index)
        self.on_progress(f"{show(candidate)}: first step, untimed")
        outcome = self.measure(candidate, self.predictions[index], STEPS, keep_going)
        self.real_steps += 1 + len(times)
        before, visit, rate = self.outcomes.get(index), None, 0.0
        if isinstance(outcome, Measurement):
            outcome = outcome.model_copy(update={"pruned": is_pruned})
            visit, rate = self.visits.add(index, outcome.step_times_s), outcome.throughput_seq_s * pace
        self.outcomes[index] = outcome
        number, over = visit.number if visit else -1, self.over_limit(index)
        if not self.study.finish(trial, outcome, number, rate, over, self.memory_limit):
            lose(self, index, before, visit)
        elif isinstance(outcome, Failure):
            note_failure(self, index, outcome)
        elif visit:
            doubt(self, visit)
        self.learn()
        self.on_outcome(self)

    def is_known_well(self, times: list[float]) -> bool:
        """Whether these steps tell the candidate's throughput well enough for a decision about further trials; or
        nearly as well as a trial can on this machine, where that is not nearly enough: turns in the final tell more."""
        if len(times) < LEAST_STEPS:
            return False
        noise = step_noise([*(visit.step_times_s for visit in self.visits.all), times])
        enough = self.goal.gain * WELL
        is_out_of_reach = len(times) >= ENOUGH_STEPS and noise.sigma / sqrt(STEPS) > OUT_OF_REACH * enough
        return is_out_of_reach or noise.sigma / sqrt(len(times)) <= enough

    def is_behind(self, index: int, times: list[float]) -> bool:
        """Whether these steps make it unlikely that the candidate beats the best by more than is worth a trial.

        A single step, which something else may have disturbed, must be clearer, and no slower than the model expects of
        a candidate that is behind.
        """
        best = max((one.rate for one in self.standings().values()), default=0.0)
        if not best:
            return False
        noise = step_noise([*(visit.step_times_s for visit in self.visits.all), times])
        sigma = hypot(noise.sigma / sqrt(len(times)), self.visits.visit_noise())
        seconds = median(times) * self.visits.usual_pace / self.visits.pace
        ahead = log(self.candidates[index].sequences / seconds / best) - self.goal.gain
        if len(times) >= LEAST_STEPS:
            return ahead < -BEHIND * sigma
        expected = self.revisions[index]
        is_expected = expected.throughput_seq_s < best and seconds < expected.step_time_high_s
        return is_expected and ahead < -BEHIND_AT_ONCE * sigma

    def is_even(self, times: list[float]) -> bool:
        """Whether the steps of a visit are alike but for noise; if not, something else ran during some of them."""
        noise = step_noise([*(visit.step_times_s for visit in self.visits.all), times])
        return log(max(times) / min(times)) <= max(NOTICEABLE, UNEVEN * noise.sigma)

    def reference(self, but: int | None = None) -> int | None:
        """The best candidate that ran here, ``but`` for one: the machine's pace is told by visiting it again."""
        standings, here = self.standings(), {visit.index for visit in self.visits.own}
        return max(here & standings.keys() - {but}, key=lambda index: standings[index].rate, default=None)

    def merge(self, index: int) -> None:
        """Makes the candidate's measurement one of all its steps at the pace at which most of them were timed."""
        before, visits = self.outcomes[index], self.visits.of(index)
        assert isinstance(before, Measurement)
        if not visits:
            return
        times, _ = self.visits.at_one_pace(index)
        tokens = before.throughput_tokens_s
        seq_len = round(tokens / before.throughput_seq_s) if tokens else None
        kept = before.model_dump(exclude={"step_times_s", "step_time_s", "throughput_seq_s", "throughput_tokens_s"})
        kept["from_earlier_run"] = all(visit.is_earlier for visit in visits)
        kept["from_other_controller"] = not any(visit.controller == self.visits.controller for visit in visits)
        self.outcomes[index] = Measurement.of(times, self.candidates[index].sequences, seq_len, **kept)

    def over_limit(self, index: int) -> int | None:
        """Bytes that the candidate needs beyond the memory limit, measured or predicted; at least 1 if it ran out."""
        prediction, outcome = self.predictions[index], self.outcomes.get(index)
        needed = prediction.device_memory_bytes or prediction.peak_memory_bytes
        if isinstance(outcome, Measurement):
            needed = outcome.device_memory_bytes or outcome.peak_memory_bytes or needed
        ran_out = isinstance(outcome, Failure) and outcome.kind == "out_of_memory"
        if self.memory_limit is None or needed is None:
            return 1 if ran_out else None
        return max(max(needed) - self.memory_limit, 1 if ran_out else -self.memory_limit)
