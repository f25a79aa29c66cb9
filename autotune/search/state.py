"""The state of a search: candidates with their predictions, every timing, measurement and failure, what is ruled out.

No process, no database and no clock in here: a report is made from it, a test builds one by hand, and what an earlier
run stored becomes one again. Everything that happens comes in through ``SearchState.add``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from autotune.records.exclusion import Exclusion, ExclusionReason
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement, Outcome
from autotune.records.prediction import Candidate, Prediction, Revision
from autotune.records.verdict import Stop, StopReason
from autotune.search.goal import LEAST_STEPS, Goal
from autotune.search.timing import Timing

ACCIDENTS = ("crash", "hang")  # a rank died or hung, which need not be the candidate's fault


@dataclass
class SearchState:
    """``predictions`` of every candidate, in the order of the report, made before any trial; ``excluded`` says which of
    them are never tried, and why. ``here`` is the controller that we are, of several.

    ``last_predictions``: with what trials before a candidate's own had taught. ``elsewhere``: what other controllers
    are running now. ``present``: what the user runs now. ``accidents``: those that lost a rank once; while in
    ``second_chance`` they may be tried again.
    """

    predictions: dict[Candidate, Prediction]
    excluded: dict[Candidate, Exclusion] = field(default_factory=dict)
    goal: Goal = field(default_factory=Goal)
    memory_limit: int | None = None
    present: Candidate | None = None
    here: str = ""
    session: int = 0
    timings: list[Timing] = field(default_factory=list)
    outcomes: dict[Candidate, Outcome] = field(default_factory=dict)
    ruled_out: dict[Candidate, Exclusion] = field(default_factory=dict)
    last_predictions: dict[Candidate, Revision] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    accidents: set[Candidate] = field(default_factory=set)
    second_chance: set[Candidate] = field(default_factory=set)
    elsewhere: set[Candidate] = field(default_factory=set)
    trials: int = 0
    earlier_trials: int = 0
    real_steps: int = 0
    stop: Stop = field(default_factory=lambda: Stop(reason=StopReason.RUNNING))

    # -- the one writer -----------------------------------------------------------------------------------------------

    def add(self, candidate: Candidate, outcome: Outcome | None, timing: Timing | None = None) -> None:
        """Take in what a visit ended as: its ``timing``, and its ``outcome``, None where another controller's stands.

        A candidate that ran keeps its measurement, of all its steps so far, whatever befalls it later.
        """
        if timing is not None:
            self.timings.append(timing)
        known = self.outcomes.get(candidate)
        if not isinstance(known, Measurement) and outcome is not None:
            self.outcomes[candidate] = outcome
            self.ruled_out.pop(candidate, None)
            self.second_chance.discard(candidate)
            if isinstance(outcome, Failure):
                self._learn_from(candidate, outcome)
        if isinstance(known := self.outcomes.get(candidate), Measurement):
            self.outcomes[candidate] = self._of_all_steps(candidate, known)

    def _learn_from(self, candidate: Candidate, failure: Failure) -> None:
        """Rule out what needs at least as much memory on the rank that ran out, by prediction; give what may have been
        an accident a second chance."""
        self.failures.append(failure)
        if failure.kind in ACCIDENTS and candidate not in self.accidents:
            self.accidents.add(candidate)
            self.second_chance.add(candidate)
        needed = self.predictions[candidate].peak_memory_bytes
        if failure.kind != "out_of_memory" or needed is None:
            return
        ranks = range(len(needed)) if failure.rank is None else [failure.rank]
        for other, prediction in self.predictions.items():
            theirs = prediction.peak_memory_bytes
            if theirs and other not in self.outcomes and all(theirs[rank] >= needed[rank] for rank in ranks):
                self.ruled_out[other] = Exclusion(reason=ExclusionReason.LEANER_RAN_OUT, leaner=candidate)

    def _of_all_steps(self, candidate: Candidate, before: Measurement) -> Measurement:
        """Return the measurement with the raw steps of all visits on our machine; where there was none, on another."""
        visits = list(self.visits(candidate))
        if not visits:
            return before
        machine = self.here if any(visit.machine == self.here for visit in visits) else visits[0].machine
        visits = [visit for visit in visits if visit.machine == machine]
        times = tuple(chain.from_iterable(visit.step_times_s for visit in visits))
        tokens = before.throughput_tokens_s
        seq_len = round(tokens / before.throughput_seq_s) if tokens else None
        kept = before.model_dump(exclude={"step_times_s", "step_time_s", "throughput_seq_s", "throughput_tokens_s"})
        kept["from_other_controller"] = machine != self.here
        kept["from_earlier_run"] = machine == self.here and all(visit.session < self.session for visit in visits)
        kept["pruned"] = len(times) < LEAST_STEPS
        return Measurement.of(times, candidate.job_sequences, seq_len, **kept)

    # -- what follows -------------------------------------------------------------------------------------------------

    def visits(self, candidate: Candidate) -> Iterator[Timing]:
        """Yield the timings of one candidate."""
        return (timing for timing in self.timings if timing.candidate == candidate)

    @property
    def allowed(self) -> list[Candidate]:
        """The candidates that are not excluded."""
        return [candidate for candidate in self.predictions if candidate not in self.excluded]

    @property
    def measured(self) -> dict[Candidate, Measurement]:
        """The candidates that ran."""
        return {candidate: one for candidate, one in self.outcomes.items() if isinstance(one, Measurement)}

    @property
    def untried(self) -> list[Candidate]:
        """The candidates that may be tried."""
        done = (self.outcomes.keys() - self.second_chance) | self.ruled_out.keys() | self.elsewhere
        return [candidate for candidate in self.allowed if candidate not in done]

    @property
    def contenders(self) -> list[Candidate]:
        """The candidates that ran and may be recommended."""
        measured = self.measured
        return [one for one in self.allowed if one in measured and (self.over_limit(one) or 0) <= 0]

    @property
    def may_win(self) -> list[Candidate]:
        """The candidates that may be recommended now, or once they have run."""
        measured, contenders = self.measured, set(self.contenders)
        lost = (self.outcomes.keys() - self.second_chance - measured.keys()) | self.ruled_out.keys()
        return [one for one in self.allowed if one in contenders or (one not in measured and one not in lost)]

    def peak(self, candidate: Candidate) -> int | None:
        """Return the bytes of the fullest rank, measured where it ran, else predicted; of every candidate alike."""
        outcome = self.outcomes.get(candidate)
        own = outcome.peak_memory_bytes if isinstance(outcome, Measurement) else None
        peaks = own or self.predictions[candidate].peak_memory_bytes
        return max(peaks) if peaks else None

    def over_limit(self, candidate: Candidate) -> int | None:
        """Return the bytes that the candidate needs beyond the memory limit, as ``over_limit`` has it."""
        return over_limit(self.predictions[candidate], self.outcomes.get(candidate), self.memory_limit)

    def largest_that_fits(self, candidate: Candidate) -> int | None:
        """Return the largest micro-batch of the candidate's schedule that fits, measured or by prediction."""
        sizes = (
            other.micro_batch_size
            for other in self.predictions
            if other.family == candidate.family and other not in self.ruled_out and (self.over_limit(other) or 0) <= 0
        )
        return max(sizes, default=None)

    def reference(self) -> Candidate | None:
        """Return what others are compared with, if it is still to be tried: the baseline, or what the user runs now."""
        return self.baseline() or (self.present if self.present in self.untried else None)

    def baseline(self) -> Candidate | None:
        """Return the candidate that shows what pipelining buys, if it is still to be tried: m = 1, or the smallest m
        that fits where that does not."""
        if all(candidate.micro_batches > 1 for candidate in self.predictions):
            return None
        least = min((one.micro_batches for one in self.may_win), default=0)
        of_least = [one for one in self.may_win if one.micro_batches == least]
        if any(one in self.measured or one in self.elsewhere for one in of_least):
            return None
        return min(
            (one for one in self.untried if one.micro_batches == least),
            key=lambda one: (one.virtual_stages, one.split is not None, one.recompute is not None),
            default=None,
        )


def over_limit(prediction: Prediction, outcome: Outcome | None, memory_limit: int | None) -> int | None:
    """Return the bytes that a candidate needs beyond the limit, measured or predicted, negative where it fits; at least
    1 if it ran out of memory; None where it is not known."""
    needed = prediction.device_memory_bytes or prediction.peak_memory_bytes
    if isinstance(outcome, Measurement):
        needed = outcome.device_memory_bytes or outcome.peak_memory_bytes or needed
    ran_out = isinstance(outcome, Failure) and outcome.kind == "out_of_memory"
    if memory_limit is None or needed is None:
        return 1 if ran_out else None
    return max(max(needed) - memory_limit, 1 if ran_out else -memory_limit)
