"""Is it the candidate, or the machine? After a trial that surprises, the reference is visited again beside it.

The reference is the best candidate that ran. If it takes longer too, by more than the noise, the machine's pace has
changed; if not, the model was wrong about the candidate, or something disturbed it alone.
"""

from math import hypot, log
from statistics import median
from typing import TYPE_CHECKING

from autotune.outcome import Failure
from autotune.search.noise import NOTICEABLE
from autotune.search.space import show
from autotune.search.visits import STEPS, Visit

if TYPE_CHECKING:
    from autotune.search.search import Search

AGAIN_STEPS = 2  # timed steps of a later visit; more while they are uneven
SURPRISE = 2.5  # sigmas between a trial and its prediction that send us back to the reference
MOST_MISFIT = 0.06  # relative; a sigma beyond which a trial surprises however unsure an uneven profile leaves the model
BY_CHANCE = 2.0  # sigmas of noise by which a new leader may lead without that


def doubt(search: "Search", visit: Visit) -> None:
    """After a trial: where it is far from what the model says relative to the reference, or takes the lead, the
    reference is visited again beside it."""
    reference = search.reference(but=visit.index)
    if reference is None or search.is_out_of_time:
        return
    visits = search.visits
    mine, other = search.predictions[visit.index], search.predictions[reference]
    before = visits.estimate(reference).step_time_s * visits.pace / visits.usual_pace
    seen = median(visit.step_times_s) / before
    gap = log(seen * other.step_time_s / mine.step_time_s)
    lead = -log(seen * search.candidates[reference].sequences / search.candidates[visit.index].sequences)
    chance = hypot(visits.noise.sigma / len(visit.step_times_s) ** 0.5, visits.estimate(reference).sigma)
    is_surprising = abs(gap) > SURPRISE * misfit(search, visit.index, reference)
    is_ahead = lead > max(NOTICEABLE, BY_CHANCE * chance)
    if (is_surprising or is_ahead) and check_pace(search, reference, visit, gap):
        if gap > 0 and has_promised(search, visit.index):
            visit_again(search, visit.index)  # it may have been disturbed alone
        search.cleared.append(abs(gap))
    search.study.keep_judged(visit)


def has_promised(search: "Search", index: int) -> bool:
    """Whether the candidate could have beaten the best, by what was predicted before it ran."""
    best = max((one.rate for one in search.standings().values()), default=0.0)
    return search.candidates[index].sequences / search.revisions[index].step_time_low_s > best


def misfit(search: "Search", index: int, reference: int) -> float:
    """Relative standard deviation of two step times' ratio around the predicted one, MOST_MISFIT at most; no less than
    what usually turned out to be the candidates' own when the reference was visited again."""
    one, other = (search.predictions[at].uncertainty for at in (index, reference))
    moments = hypot(one.moment, other.moment, search.visits.noise.sigma)
    expected = hypot(one.own, other.own, one.overhead - other.overhead, moments)
    if search.candidates[index].placement != search.candidates[reference].placement:
        expected = hypot(expected, one.placement, other.placement)
    return max(min(expected, MOST_MISFIT), median(search.cleared) if search.cleared else 0.0)


def check_pace(search: "Search", reference: int, doubtful: Visit | None = None, gap: float = 0.0) -> bool:
    """Visits the reference again; returns whether the machine's pace is known to be as before.

    Where it has changed, it had done so before a ``doubtful`` trial if that explains by what this was off, ``gap``.
    """
    search.on_progress(f"the machine's pace: {show(search.candidates[reference])} again")
    before = search.visits.estimate(reference).step_time_s
    visit = measure_again(search, reference)
    search.checks += 1
    if visit is None:
        return False
    shift = log(median(visit.step_times_s) / before * search.visits.usual_pace / search.visits.pace)
    start = doubtful.number if doubtful is not None and abs(gap - shift) < abs(gap) else visit.number
    return judge(search, [visit], start)


def visit_again(search: "Search", index: int) -> None:
    """A later visit at the machine's present pace; its steps count beside those of the trial."""
    visit = measure_again(search, index)
    if visit is not None:
        search.study.keep_visit(visit)
        search.merge(index)
        search.learn()


def measure_again(search: "Search", index: int) -> Visit | None:
    """Steps of a candidate that ran, not stored before their pace is known; None if it failed."""
    times: list[float] = []

    def keep_going(number: int, seconds: float) -> bool:
        times.append(seconds)
        return len(times) < AGAIN_STEPS or (not search.is_even(times) and not search.is_out_of_time)

    candidate = search.candidates[index]
    outcome = search.measure(candidate, search.predictions[index], STEPS, keep_going)
    search.real_steps += 1 + len(times)
    if isinstance(outcome, Failure):
        search.on_warning(f"{show(candidate)} ran before, but failed when visited again: {outcome.message}")
        return None
    return search.visits.add(index, outcome.step_times_s)


def judge(search: "Search", visits: list[Visit], start: int) -> bool:
    """Compares ``visits`` with earlier ones to the same candidates, and stores them; a changed pace, from visit
    ``start`` on, is stored first, and said. Returns whether it has not changed."""
    found = search.visits
    change = found.change_since([visit.number for visit in visits], start)
    if change is not None:
        before = found.pace
        found.changes.append(change)
        search.study.keep_change(change)
        search.on_warning(
            f"the machine drifted: steps of the same candidate take {change.pace / before:.2f} times as long as before;"
            " candidates are compared with what was measured beside them"
        )
    for visit in visits:
        search.study.keep_visit(visit)
    for index in search.measured:
        search.merge(index)
    search.learn()
    return change is None
