"""The final: candidates that are too close to call meet face to face, in random order, round by round."""

import random
from math import hypot
from typing import TYPE_CHECKING

from autotune.search.space import show

if TYPE_CHECKING:
    from autotune.search.search import Search

ROUNDS, FINALISTS = 3, 3
SURE = 0.95  # confidence that ends the final
ACCEPTED = 1 / 3  # of the tolerance: known to that, a tie is a tie


def contenders(search: "Search") -> list[int]:
    """The pick, the fastest, and whoever could be faster than the pick by more than the tolerance; at most three."""
    standings, winner = search.standings(), search.pick()
    if winner is None:
        return []
    mine = standings[winner]

    def chance(index: int) -> float:
        """How many sigmas the candidate is beyond the tolerance above the pick; grows with its chance to be so."""
        one = standings[index]
        return (one.rate / mine.rate - 1 - search.goal.tolerance) / hypot(one.sigma, mine.sigma)

    others = sorted((index for index in standings if index != winner and chance(index) > -2), key=chance, reverse=True)
    return [winner, *others[: FINALISTS - 1]]


def is_accepted(search: "Search", finalists: list[int]) -> bool:
    """Whether the differences to the pick are known so well that further rounds would not change what follows."""
    standings = search.standings()
    spreads = [hypot(standings[finalists[0]].sigma, standings[index].sigma) for index in finalists[1:]]
    return max(spreads) <= search.goal.tolerance * ACCEPTED


def hold_final(search: "Search") -> None:
    """Rounds until the pick is sure, the tie is accepted, or the rounds or the budget are used up.

    In each round every finalist is visited once. Its visits are compared within the round, so that drift between rounds
    does no harm; it is noted all the same. An earlier run's final stands while no further candidate has run.
    """
    held = search.study.final()
    if held is not None and held[1] == len(search.measured):
        search.final = held[0]
        return
    shuffle = random.Random(search.seed)
    for number in range(ROUNDS + 1):
        finalists = contenders(search)
        if ended := why_over(search, finalists, number):
            search.final = ended
            search.study.keep_final(ended, len(search.measured))
            return
        if search.is_out_of_time:
            search.final = "left open when the budget was used up"
            return
        play_round(search, shuffle.sample(finalists, len(finalists)), number)
        search.on_outcome(search)


def why_over(search: "Search", finalists: list[int], rounds: int) -> str:
    """Why no further round is needed, or nothing."""
    after = f" after {rounds} rounds" if rounds else " by the trials"
    if len(finalists) < 2 or search.confidence(is_of_measured=True) >= SURE:
        return f"the winner is separated{after}"
    if is_accepted(search, finalists):
        return f"the tie is accepted{after}"
    return f"the tie is accepted: not separated{after}" if rounds == ROUNDS else ""


def play_round(search: "Search", order: list[int], number: int) -> None:
    """Visits each finalist once; then the round as a whole tells the machine's pace."""
    visits = []
    for index in order:
        search.on_progress(f"final, round {number + 1}: {show(search.candidates[index])}")
        visit = search.visit_again(index)
        if visit is not None:
            visits.append(visit)
    if visits:
        search.note_pace(visits, visits[0].number)
        search.learn()
