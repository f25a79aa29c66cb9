"""Other controllers of the same study: what they have measured, what they are running now, how fast their machines are.

::

    catch up -> anything to try? -yes-> meet whom we share no candidate with -> a trial -> catch up ...
                      |
                      `-no-> are others still running some? -yes-> wait: they may die, and hand it on -> catch up ...
"""

import time
from typing import TYPE_CHECKING

from autotune.outcome import Failure, Measurement
from autotune.search.failures import common_fault
from autotune.search.pace import visit_again
from autotune.search.space import show
from autotune.search.visits import Visit

if TYPE_CHECKING:
    from autotune.search.search import Search

POLL_S = 1.0


def catch_up(search: "Search") -> None:
    """Takes over what other controllers have measured since, and frees what dead ones were running."""
    if not search.study.controller:
        return
    search.study.recover()
    search.elsewhere = search.study.running_elsewhere()  # read first: one that ends now is in both, not in neither
    found = search.study.finished(search.memory_limit)
    search.visits.replace_others(search.study.visits())
    for index in search.measured:
        search.merge(index)
    new = {index: outcome for index, outcome in found.items() if is_news(search, index, outcome)}
    search.take_over(new)
    if new:
        search.on_outcome(search)


def is_news(search: "Search", index: int, outcome: Measurement | Failure) -> bool:
    """Whether another controller's outcome says more than what is known of the candidate."""
    known = search.outcomes.get(index)
    is_settled = isinstance(known, Measurement) or (isinstance(known, Failure) and index not in search.second_chance)
    return not is_settled or (isinstance(known, Failure) and isinstance(outcome, Measurement))


def wait_for_others(search: "Search") -> bool:
    """Waits a moment for what others are running now; False where that is not to be waited for."""
    running = sorted(search.elsewhere & set(search.allowed))
    if not running or search.is_out_of_time or search.is_out_of_trials or common_fault(search):
        return False
    names = ", ".join(show(search.candidates[index]) for index in running)
    search.on_progress(f"waiting for another controller's trial of {names}")
    time.sleep(POLL_S)
    return True


def meet(search: "Search") -> None:
    """Visits the best candidate of each controller whose machine cannot be compared with ours yet."""
    standings = search.standings()
    for other in sorted(search.visits.strangers - search.met):
        search.met.add(other)  # once, also where the visit fails
        theirs = {visit.index for visit in search.visits.all if visit.controller == other}
        best = max(theirs & standings.keys(), key=lambda index: standings[index].rate, default=None)
        if best is not None and other in search.visits.strangers:
            search.on_progress(f"another controller's machine beside ours: {show(search.candidates[best])}")
            visit_again(search, best)


def lose(search: "Search", index: int, before: Measurement | Failure | None, visit: Visit | None) -> None:
    """After a trial that others had taken for dead when it ended: the candidate may be theirs by now, so what was timed
    here counts as one more visit, and not as the trial."""
    del search.outcomes[index]
    if before is not None:
        search.outcomes[index] = before
    if visit is not None:
        search.study.keep_visit(visit)
    search.on_warning(
        f"the trial of {show(search.candidates[index])} was handed on to others while it ran, for this controller gave"
        " no sign of life for too long; a longer --heartbeat allows for that"
    )
