"""The final: candidates that are too close to call meet face to face, in random order, round by round."""

import random
from math import hypot, log
from typing import TYPE_CHECKING

from autotune.search.choose import leanness
from autotune.search.noise import NOTICEABLE
from autotune.search.pace import check_pace, judge, measure_again
from autotune.search.prospects import confidence, expected_loss
from autotune.search.space import show
from autotune.search.visits import STEPS

if TYPE_CHECKING:
    from autotune.search.search import Search

ROUNDS, MOST_ROUNDS, FINALISTS = 2, 5, 3
LOOKS = 6  # at the reference, for the machine's usual pace to come back
SURE = 0.95  # confidence that ends the final
ACCEPTED = 2 / 3  # of the tolerance: a tie whose expected loss is less is not worth further steps
ACCEPTED_AT_LAST = 3 / 2  # after ROUNDS
FAR, SAFE = 2.0, 0.975  # before that the pick must also be within so many tolerances of the best, with this probability


def contenders(search: "Search") -> list[int]:
    """The pick, and whoever could be faster than that by more than the tolerance, at most three; for the least memory
    also whoever is leaner and could be fast enough."""
    standings, winner, goal = search.standings(), search.pick(), search.goal
    if winner is None:
        return []
    mine, best = standings[winner], max(standings.values(), key=lambda one: one.rate)

    def chance(index: int) -> float:
        """How many sigmas the candidate is beyond what it takes to win; grows with its chance to win."""
        one = standings[index]
        if goal.objective == "memory" and leanness(one) < leanness(mine):
            return (one.rate / best.rate - 1 + goal.tolerance) / hypot(one.sigma, best.sigma)
        return (one.rate / mine.rate - 1 - goal.tolerance) / hypot(one.sigma, mine.sigma)

    others = sorted((index for index in standings if index != winner and chance(index) > -2), key=chance, reverse=True)
    return [winner, *others[: FINALISTS - 1]]


def hold_final(search: "Search") -> None:
    """Rounds until the pick is sure, the tie is accepted, or the rounds or the budget are used up: a few, and more only
    where the machine is so uneven that the pick would be a guess, and while all candidates would take more steps.

    In each round every finalist is visited once. Its visits are compared within the round, so that drift between rounds
    does no harm; it is noted all the same. A round is not begun before the machine is back at its usual pace, for at
    another one another candidate may be best. An earlier run's final stands while no further candidate has run.
    """
    if search.pick() is None:
        return
    between = sorted(search.standings())
    if held := search.study.final(between, search.goal):
        search.final = held
        return
    shuffle = random.Random(search.seed)
    for number in range(MOST_ROUNDS + 1):
        finalists = contenders(search)
        if ended := why_over(search, finalists, number):
            search.final = ended
            search.study.keep_final(ended, between, search.goal)
            return
        if search.is_out_of_time:
            search.final = "left open when the budget was used up"
            return
        if not is_usual_again(search):
            search.final = "left open, for the machine did not come back to its usual pace"
            return
        play_round(search, shuffle.sample(finalists, len(finalists)), number)
        search.on_outcome(search)


def is_usual_again(search: "Search") -> bool:
    """Whether the machine is at its usual pace; while it is not, the reference is visited again, a few times."""
    for _ in range(LOOKS):
        reference, visits = search.reference(), search.visits
        if abs(log(visits.pace / visits.usual_pace)) < NOTICEABLE:
            return True
        if reference is None or search.is_out_of_time:
            break
        check_pace(search, reference)
    return False


def why_over(search: "Search", finalists: list[int], rounds: int) -> str:
    """Why no further round is needed, or nothing."""
    after = f" after {rounds} round{'' if rounds == 1 else 's'}" if rounds else " by the trials"
    standings = search.standings()
    leaner = [index for index in finalists if leanness(standings[index]) < leanness(standings[finalists[0]])]
    is_fast_enough = search.confidence(is_of_measured=True) >= SURE
    if len(finalists) < 2 or (is_fast_enough and not (leaner and search.goal.objective == "memory")):
        return f"the winner is separated{after}"
    loss = expected_loss(finalists[0], standings)
    accepted = search.goal.tolerance * (ACCEPTED if rounds < ROUNDS else ACCEPTED_AT_LAST)
    is_safe = rounds >= ROUNDS or confidence(finalists[0], standings, FAR * search.goal.tolerance) >= SAFE
    if search.goal.objective == "throughput" and loss <= accepted and is_safe:
        return f"the tie is accepted{after}: the pick is expected to lose {loss:.1%}"
    exhaustive = (1 + STEPS) * len(search.allowed)
    is_worth_more = search.goal.objective == "throughput" and search.real_steps < exhaustive
    last = MOST_ROUNDS if is_worth_more else ROUNDS
    return f"the tie is accepted: not separated{after}" if rounds >= last else ""


def play_round(search: "Search", order: list[int], number: int) -> None:
    """Visits each finalist once; then the round as a whole tells the machine's pace."""
    visits = []
    for index in order:
        if search.is_out_of_time:
            break
        search.on_progress(f"final, round {number + 1}: {show(search.candidates[index])}")
        visit = measure_again(search, index)
        if visit is not None:
            visits.append(visit)
    if visits:
        judge(search, visits, visits[0].number)
