"""What was timed, visit by visit, and what follows for each candidate: the noise, the machine's pace, the estimates.

A *visit* is one stay at a candidate: it is made ready, primed, and some steps are timed. Machines drift, so times from
different moments are compared only through the *pace*, how many times longer a step took then than at first::

    log step time  =  log of the candidate's own  +  log pace then  +  noise of the visit  +  noise of the step

The pace is 1 until the reference, the best candidate so far, is visited again and has changed by more than its noise;
it then holds another value from some visit on. The *usual* pace is the one at which the machine did most of its work,
profiling included. Nothing is simply averaged across a change: what was timed at another pace is scaled to the usual
one, and what that leaves in doubt widens the estimate, so that visits at the usual pace decide.

Several *controllers* may share a study, each with ranks of its own. The pace of another's machine, beside ours, is told
by the candidates that both have visited; its visits are then scaled like those at another pace of our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp, hypot, log
from statistics import mean, median

from autotune.predict.revise import Estimate
from autotune.search.noise import NOTICEABLE, Fit, Noise, deviation, robust_mean, step_noise

STEPS = 5  # timed steps of a visit at most
VISIT_NOISE, VISIT_WEIGHT = 0.004, 2  # relative; between visits to one candidate on a steady machine; its weight
PACE_MISFIT = 0.4  # of a change of pace in logarithms: candidates do not slow down all alike
UNRELATED = 0.05  # relative; between two machines of a kind, before they have run the same candidate
BETTER = 3.0  # by how much another pace must explain visits better, in the logarithm of their likelihood
AS_PROFILED = 0.15  # relative; a pace this near to that of the profile may be the same, for all that the model knows


@dataclass(frozen=True)
class Visit:
    """Timed steps of candidate ``index``, one after the other. ``number`` counts the controller's visits in the order
    of time; ``is_earlier``: in an earlier run."""

    number: int
    index: int
    step_times_s: tuple[float, ...]
    is_earlier: bool = False
    controller: str = ""


@dataclass(frozen=True)
class PaceChange:
    """From ``visit`` on a step takes ``pace`` times as long as at first, on the machine of ``controller``."""

    visit: int
    pace: float
    controller: str = ""


@dataclass(frozen=True)
class Ratio:
    """How many times longer a step takes here than on another machine, and the relative standard deviation of that."""

    times: float
    sigma: float


@dataclass
class Visits:
    """Every visit so far, and every change of pace that was found; ``controller`` is who we are, of several."""

    all: list[Visit] = field(default_factory=list)
    changes: list[PaceChange] = field(default_factory=list)
    controller: str = ""
    next_number: int = 0
    prior: float = VISIT_NOISE  # what visits to one candidate are taken to differ by before any was repeated
    profiled_s: float = 0.0  # that our machine was profiled for just before
    profiled_pace: float = 1.0  # that it had then, as predicted steps beside timed ones tell
    unjudged: Visit | None = None  # an earlier run ended before it could tell whether the pace had changed by then
    _ratios: dict[tuple[str, int, int], Ratio] = field(default_factory=dict, repr=False)

    def add(self, index: int, step_times_s: tuple[float, ...]) -> Visit:
        """The visit that has just ended."""
        visit = Visit(self.next_number, index, step_times_s, controller=self.controller)
        self.next_number += 1
        self.all.append(visit)
        return visit

    def replace_others(self, stored: "Visits") -> None:
        """Takes over all that other controllers have stored by now."""
        self.all = [*self.own, *(visit for visit in stored.all if visit.controller != self.controller)]
        others = (change for change in stored.changes if change.controller != self.controller)
        self.changes = [*self._changes(self.controller), *others]

    def of(self, index: int) -> list[Visit]:
        """The visits to one candidate."""
        return [visit for visit in self.all if visit.index == index]

    @property
    def own(self) -> list[Visit]:
        """The visits on our own machine."""
        return [visit for visit in self.all if visit.controller == self.controller]

    @property
    def strangers(self) -> set[str]:
        """The controllers that have visited no candidate that we have visited too."""
        others = {visit.controller for visit in self.all} - {self.controller}
        return {other for other in others if not self._gaps(other)}

    def _changes(self, controller: str) -> list[PaceChange]:
        return [change for change in self.changes if change.controller == controller]

    def pace_at(self, visit: Visit) -> float:
        """The pace of the visit's machine then; of another controller's machine as a multiple of our own first one."""
        return self._own_pace(visit) / self.ratio(visit.controller).times

    def _own_pace(self, visit: Visit) -> float:
        """The pace of the visit's machine then, over that which the same machine had at first."""
        changes = reversed(self._changes(visit.controller))
        return next((change.pace for change in changes if change.visit <= visit.number), 1.0)

    def ratio(self, controller: str) -> Ratio:
        """Our machine beside that of ``controller``, each as it was at first."""
        if controller == self.controller:
            return Ratio(1.0, 0.0)
        known = (controller, len(self.all), len(self.changes))  # neither list ever shrinks
        if known not in self._ratios:
            gaps = self._gaps(controller)
            sigma = self.visit_noise() * (2 / len(gaps)) ** 0.5 if gaps else UNRELATED
            self._ratios[known] = Ratio(exp(mean(gaps)) if gaps else 1.0, sigma)
        return self._ratios[known]

    def _gaps(self, controller: str) -> list[float]:
        """For each candidate visited here and there: the logarithm of our step time over theirs."""
        mine: dict[int, list[float]] = {}
        theirs: dict[int, list[float]] = {}
        for visit in self.all:
            if visit.controller in (self.controller, controller):
                side = mine if visit.controller == self.controller else theirs
                side.setdefault(visit.index, []).append(log(median(visit.step_times_s) / self._own_pace(visit)))
        return [mean(mine[index]) - mean(theirs[index]) for index in mine.keys() & theirs.keys()]

    @property
    def pace(self) -> float:
        """Our machine's pace now."""
        mine = self._changes(self.controller)
        return mine[-1].pace if mine else 1.0

    @property
    def usual_pace(self) -> float:
        """The pace at which our machine did most of what it was seen to do; the later of two.

        Profiling counts for every pace that may be the one it was done at: it tells a disturbance from the usual, and
        leaves it to the steps whether the machine has drifted a little.
        """
        work: dict[float, float] = {}  # in seconds at the first pace
        for visit in self.own:
            pace = self.pace_at(visit)
            work[pace] = work.get(pace, 0.0) + sum(visit.step_times_s) / pace
        for pace in work:
            if abs(log(pace / self.profiled_pace)) < AS_PROFILED:
                work[pace] += self.profiled_s / pace
        return max(reversed(work), key=lambda pace: work[pace], default=1.0)

    def place_profile(self, predicted_s: Sequence[float]) -> None:
        """Finds the pace that the machine had while it was profiled: the one at which steps are as long as predicted.

        ``predicted_s``: seconds of a step of each candidate.
        """
        gaps = [log(predicted_s[v.index] / median(v.step_times_s) * self.pace_at(v)) for v in self.own]
        self.profiled_pace = exp(median(gaps)) if gaps else 1.0

    @property
    def paces(self) -> list[float]:
        """Every pace that our machine had."""
        return [1.0, *(change.pace for change in self._changes(self.controller))]

    @property
    def noise(self) -> Noise:
        """Of a step."""
        return step_noise(visit.step_times_s for visit in self.all)

    def visit_noise(self, before: int | None = None) -> float:
        """Relative standard deviation between visits to the same candidate at one pace, beyond that of their steps; of
        our visits ``before`` a number only. From the median absolute deviation, like that of steps."""
        groups: dict[tuple[int, str, float], list[Visit]] = {}
        for visit in self._until(before):
            groups.setdefault((visit.index, visit.controller, self._own_pace(visit)), []).append(visit)
        repeated = [visits for visits in groups.values() if len(visits) > 1]
        freedom = sum(len(visits) - 1 for visits in repeated)
        seen = deviation([median(visit.step_times_s) for visit in visits] for visits in repeated)
        steps = [self.noise.sigma**2 / len(visit.step_times_s) for visits in repeated for visit in visits]
        own = max(0.0, seen**2 - mean(steps)) if repeated else 0.0
        variance = (VISIT_WEIGHT * self.prior**2 + freedom * own) / (VISIT_WEIGHT + freedom)
        return float(variance**0.5)

    def _until(self, before: int | None) -> list[Visit]:
        """Every visit, or ours ``before`` a number."""
        return self.all if before is None else [visit for visit in self.own if visit.number < before]

    def estimate(self, index: int, before: int | None = None, pace: float | None = None) -> Estimate:
        """The candidate's step at ``pace`` (None: the usual one) from its visits, ours ``before`` a number only; each
        weighs by what it leaves open."""
        sigma, between, wanted = self.noise.sigma, self.visit_noise(before), pace or self.usual_pace
        seen: list[tuple[float, float]] = []  # logarithm of the step, its variance
        for visit in self._until(before):
            if visit.index != index:
                continue
            off = log(self.pace_at(visit) / wanted)
            variance = between**2 + sigma**2 / len(visit.step_times_s) + (PACE_MISFIT * off) ** 2
            variance += self.ratio(visit.controller).sigma ** 2
            seen.append((log(median(visit.step_times_s)) - off, variance))
        return robust_mean(seen)

    def estimates(self) -> dict[int, Estimate]:
        """Of every candidate visited."""
        return {index: self.estimate(index) for index in {visit.index for visit in self.all}}

    def change_since(self, numbers: Sequence[int], start: int) -> PaceChange | None:
        """Whether the pace has changed, as told by visits ``numbers`` to candidates that had been visited before.

        Returns the change as beginning with visit ``start``, or None. A pace that the machine had before is that pace
        again where it explains the visits far better than the present one, of which too little may be known to rule it
        out. It is a new one where neither an earlier nor the present one explains them within the noise.
        """
        now = self._fit(numbers, self.pace)
        if now is None:  # only others had visited these
            return None
        others = [pace for pace in set(self.paces) if abs(log(pace / self.pace)) >= NOTICEABLE]
        fits = {pace: fit for pace in others if (fit := self._fit(numbers, pace)) is not None and fit.is_within_noise}
        again = max(fits, key=lambda pace: fits[pace].likelihood, default=None)
        if again is not None and (not now.is_within_noise or fits[again].likelihood > now.likelihood + BETTER):
            return PaceChange(start, again, self.controller)
        return None if now.is_within_noise else PaceChange(start, self.pace * exp(now.shift), self.controller)

    def _fit(self, numbers: Sequence[int], pace: float) -> Fit | None:
        """How visits ``numbers`` agree with what earlier ones make expect of their candidates at ``pace``."""
        first, between = min(numbers), self.visit_noise(before=min(numbers))
        known = {visit.index for visit in self._until(first)}
        shifts, variances = [], []
        for visit in self.own:
            if visit.number in numbers and visit.index in known:
                before = self.estimate(visit.index, first, pace)
                shifts.append(log(median(visit.step_times_s) / before.step_time_s))
                steps = len(visit.step_times_s)
                variances.append(hypot(before.sigma, between, self.noise.sigma / steps**0.5) ** 2)
        return Fit(mean(shifts), sum(variances) ** 0.5 / len(shifts)) if shifts else None

    def at_one_pace(self, index: int) -> tuple[tuple[float, ...], float]:
        """The raw steps of a candidate at the pace at which most of its steps were timed; that pace."""
        groups: dict[float, list[Visit]] = {}
        for visit in self.of(index):
            groups.setdefault(self.pace_at(visit), []).append(visit)
        pace, visits = max(
            groups.items(), key=lambda item: (sum(len(v.step_times_s) for v in item[1]), item[1][-1].number)
        )
        return tuple(chain.from_iterable(visit.step_times_s for visit in visits)), pace
