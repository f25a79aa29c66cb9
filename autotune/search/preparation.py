"""The time that making a candidate ready takes, learned from the visits that were made."""

from statistics import median

from autotune.records.prediction import Candidate


class Preparation:
    """Seconds that making ready took, beside the untimed step, by whether the model had to be cut anew for it."""

    def __init__(self) -> None:
        self.last: Candidate | None = None
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def is_cut_anew(self, candidate: Candidate) -> bool:
        """Return whether the stages lie otherwise on the ranks than for the last candidate."""
        return self.last is None or self.last.placement != candidate.placement

    def note(self, candidate: Candidate, seconds: float) -> None:
        """Take in how long a visit took to be made ready."""
        self.seconds[self.is_cut_anew(candidate)].append(seconds)
        self.last = candidate

    def expected_s(self, candidate: Candidate) -> float:
        """Return the median of what it took so far; 0 before the first visit."""
        known = self.seconds[self.is_cut_anew(candidate)] or self.seconds[True] + self.seconds[False]
        return median(known) if known else 0.0
