"""Which candidate wins, and what lies around it: the rules of DESIGN section 6, on plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf

from autotune.predict.record import Candidate, Prediction
from autotune.search.prospects import TIE, Goal, Standing

WIDEST_TIE = 0.02  # however noisy the steps, throughputs further apart than this decide
NOISE = 1.645  # sigmas; one of two equal candidates looks better by more in 5 of 100 cases


def is_tied(one: Standing, other: Standing, tolerance: float) -> bool:
    """Whether two throughputs differ by less than the tolerance or their noise, that up to WIDEST_TIE."""
    gap = 1 - min(one.rate, other.rate) / max(one.rate, other.rate)
    return gap <= max(tolerance, min(NOISE * hypot(one.sigma, other.sigma), WIDEST_TIE))


def fastest(standings: Mapping[int, Standing]) -> int | None:
    """The candidate with the highest throughput."""
    return max(standings, key=lambda index: standings[index].rate, default=None)


def eligible(standings: Mapping[int, Standing], goal: Goal) -> list[int]:
    """Who is fast enough to win, the fastest first: tied with it, or, for the least memory, within tolerance."""
    best = fastest(standings)
    if best is None:
        return []
    ranking = sorted(standings, key=lambda index: -standings[index].rate)
    top = standings[best]
    if goal.objective == "memory":
        return [index for index in ranking if standings[index].rate >= top.rate * (1 - goal.tolerance)]
    return [index for index in ranking if is_tied(top, standings[index], goal.tolerance)]


def pick(standings: Mapping[int, Standing], goal: Goal) -> int | None:
    """The winner: of those fast enough the one whose fullest rank needs the least memory; None if none ran."""
    return min(eligible(standings, goal), key=lambda index: leanness(standings[index]), default=None)


def leanness(one: Standing) -> tuple[float, float]:
    """Peak memory first, then throughput; what is not known counts as most."""
    return (inf if one.peak is None else one.peak, -one.rate)


@dataclass(frozen=True)
class Knee:
    """The smallest m within the tolerance of the best of its own schedule; its neighbours in m. ``best``: the rate
    that they are compared with."""

    index: int
    fewer: int | None
    more: int | None
    best: float


def find_knee(
    winner: int, candidates: Sequence[Candidate], standings: Mapping[int, Standing], tolerance: float = TIE
) -> Knee:
    """The knee of throughput over m under the winner's schedule. ``standings``: measured or predicted.

    Where m is too small for 1F1B, GPipe stands in for it.
    """
    curve = sorted(curve_of(winner, candidates, standings), key=lambda index: candidates[index].micro_batches)
    best = max(standings[index].rate for index in curve)
    at = next(place for place, index in enumerate(curve) if standings[index].rate >= best * (1 - tolerance))
    return Knee(
        index=curve[at],
        fewer=curve[at - 1] if at else None,
        more=curve[at + 1] if at + 1 < len(curve) else None,
        best=best,
    )


def curve_of(winner: int, candidates: Sequence[Candidate], indices: Iterable[int]) -> list[int]:
    """The candidates of the winner's schedule and stages per rank, one for each m."""
    own = (candidates[winner].schedule, candidates[winner].virtual_stages)
    same = [i for i in indices if (candidates[i].schedule, candidates[i].virtual_stages) == own]
    if own[0] != "1F1B":
        return same
    least = min(candidates[index].micro_batches for index in same)
    return same + [i for i in indices if candidates[i].schedule == "GPipe" and candidates[i].micro_batches < least]


def pareto_front(standings: Mapping[int, Standing]) -> list[int]:
    """The candidates that no other beats in throughput and peak memory alike, the leanest first."""
    front: list[int] = []
    known = [one for one in standings.values() if one.peak is not None]
    for one in sorted(known, key=leanness):
        if not front or one.rate > standings[front[-1]].rate:
            front.append(one.index)
    return front


def why_not(index: int, winner: int, predictions: list[Prediction], candidates: list[Candidate]) -> str:
    """What candidate ``index`` loses most to, against the winner, as its predicted time per sequence splits."""
    mine, best = (
        {
            part: seconds / candidates[at].sequences
            for part, seconds in predictions[at].time_split_s.model_dump().items()
        }
        for at in (index, winner)
    )
    names = {"compute": "granularity", "overhead": "granularity", "slowdown": "granularity"}
    losses: dict[str, float] = {}
    for part, seconds in mine.items():
        name = names.get(part, part)
        losses[name] = losses.get(name, 0.0) + seconds - best[part]
    return max(losses, key=lambda name: losses[name])
