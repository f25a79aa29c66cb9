"""The search: confirm as few candidates as honestly possible, best prospects first, and settle ties face to face."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autotune.pipeline.outcome import Failure, Measurement
from autotune.predict.record import Candidate, Prediction
from autotune.search.choose import TIE, finalists
from autotune.search.study import Study

STEPS = 5  # timed steps of a trial
FINAL_ROUNDS, FINAL_STEPS, FINAL_SIZE = 2, 3, 3
UNSEEN_ERROR = 0.15  # how far a prediction may be off before any has been checked
LEAST_ERROR = 0.03

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
    """The state of a search. ``outcomes`` maps the index of a candidate to what its real run ended as."""

    candidates: list[Candidate]
    predictions: list[Prediction]
    allowed: list[int]
    study: Study
    measure: Measure
    limits: Limits
    on_progress: Callable[[str], None]
    on_outcome: Callable[["Search"], None]
    rule_of_thumb: int
    seed: int = 0
    outcomes: dict[int, Measurement | Failure] = field(default_factory=dict)
    trials: int = 0
    real_steps: int = 0
    stopped_because: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.started

    @property
    def measured(self) -> dict[int, Measurement]:
        """The candidates that ran."""
        return {index: outcome for index, outcome in self.outcomes.items() if isinstance(outcome, Measurement)}

    def run(self) -> None:
        """Takes over what an earlier run measured, then runs trials until nothing can win, then the final."""
        earlier = self.study.finished()
        for index in range(len(self.candidates)):
            outcome = earlier.get((self.candidates[index].micro_batches, self.candidates[index].schedule))
            if isinstance(outcome, Measurement):
                self.outcomes[index] = outcome.model_copy(update={"from_earlier_run": True})
            elif outcome is not None:
                self.outcomes[index] = outcome
        while (chosen := self.next_candidate()) is not None:
            self.try_candidate(chosen)
        self.settle()

    def next_candidate(self) -> int | None:
        """The most promising candidate not yet tried, or None with ``stopped_because`` set."""
        untried = [index for index in self.allowed if index not in self.outcomes]
        if not untried:
            self.stopped_because = "every candidate was measured"
        elif self.limits.trials is not None and self.trials >= self.limits.trials:
            self.stopped_because = f"the limit of {self.limits.trials} trials"
        elif self.limits.budget_s is not None and self.elapsed_s > self.limits.budget_s:
            self.stopped_because = f"the budget of {self.limits.budget_s:g} s"
        else:
            for index in self.opening():
                if index in untried:
                    return index
            best = max((m.throughput_seq_s for m in self.measured.values()), default=0.0)
            hopeful = max(untried, key=self.optimistic)
            if self.limits.exhaustive or self.optimistic(hopeful) > best * (1 + TIE):
                return hopeful
            self.stopped_because = "no other candidate can beat the best by more than 1 %, given the errors seen"
        return None

    def opening(self) -> list[int]:
        """What is always tried: the best prediction, the rule of thumb m = 4p, the naive m = 1."""
        by_prediction = max(self.allowed, key=lambda index: self.predictions[index].throughput_seq_s)
        near = min(self.allowed, key=lambda index: abs(self.candidates[index].micro_batches - self.rule_of_thumb))
        naive = min(self.allowed, key=lambda index: self.candidates[index].micro_batches)
        return [by_prediction, near, naive]

    def optimistic(self, index: int) -> float:
        """Sequences per second that the candidate could reach: its prediction, corrected by the typical error of those
        checked so far and raised by the largest deviation from it."""
        ratios = sorted(
            m.throughput_seq_s / self.predictions[checked].throughput_seq_s for checked, m in self.measured.items()
        )
        if not ratios:
            return self.predictions[index].throughput_seq_s * (1 + UNSEEN_ERROR)
        typical = ratios[len(ratios) // 2]
        spread = max(max(abs(ratio / typical - 1) for ratio in ratios), LEAST_ERROR)
        if len(ratios) == 1:
            spread = UNSEEN_ERROR
        return self.predictions[index].throughput_seq_s * typical * (1 + spread)

    def try_candidate(self, index: int) -> None:
        """One trial: timed steps are reported one by one, so that the pruner can end it."""
        candidate = self.candidates[index]
        trial = self.study.begin(candidate)

        def keep_going(number: int, seconds: float) -> bool:
            self.real_steps += 1
            trial.report(candidate.sequences / seconds, number)
            self.on_progress(f"m = {candidate.micro_batches} {candidate.schedule}: step {number + 1}, {seconds:.3f} s")
            return self.limits.exhaustive or not trial.should_prune()

        self.trials += 1
        self.on_progress(f"m = {candidate.micro_batches} {candidate.schedule}: first step, untimed")
        outcome = self.measure(candidate, self.predictions[index], STEPS, keep_going)
        self.real_steps += 1  # the untimed one
        self.outcomes[index] = outcome
        self.study.finish(trial, outcome)
        self.on_outcome(self)

    def settle(self) -> None:
        """The final: tied candidates are measured again, interleaved and in random order, and their samples added.

        An earlier run's final stands, and there is none once the budget is used up.
        """
        tied = finalists(self.measured)[:FINAL_SIZE]
        fresh = any(not self.measured[index].from_earlier_run for index in tied)
        out_of_time = self.limits.budget_s is not None and self.elapsed_s > self.limits.budget_s
        if len(tied) < 2 or (self.study.is_settled and not fresh) or out_of_time:
            return
        shuffle = random.Random(self.seed)
        for number in range(FINAL_ROUNDS):
            for index in shuffle.sample(tied, len(tied)):
                self.on_progress(f"final, round {number + 1}: m = {self.candidates[index].micro_batches}")
                self._measure_again(index)
        for index in tied:
            if index in self.measured:
                self.study.settle(self.candidates[index], self.measured[index])
        self.on_outcome(self)

    def _measure_again(self, index: int) -> None:
        candidate, before = self.candidates[index], self.measured.get(index)
        outcome = self.measure(candidate, self.predictions[index], FINAL_STEPS, lambda *_: True)
        self.real_steps += FINAL_STEPS + 1
        if before is None or isinstance(outcome, Failure):
            self.outcomes[index] = outcome
            return
        samples = before.step_times_s + outcome.step_times_s
        tokens_per_sequence = round(outcome.throughput_tokens_s / outcome.throughput_seq_s)
        known = outcome.model_dump(include={"peak_memory_bytes", "loss", "measured_at"})
        self.outcomes[index] = Measurement.of(samples, candidate.sequences, tokens_per_sequence, **known)
