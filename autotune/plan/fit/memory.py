"""Peak memory of each rank, learned from the peaks of a few runs: a line in what is in flight.

    peak of rank r = static(r) + sequences in flight on r x activations(r)

Sequences in flight are the schedule's own count of micro-batches times b. Runs of two different counts solve it; more
are fitted by least squares, weights as they are printed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autotune.predict.schedules import build_schedule
from autotune.records.prediction import Candidate
from autotune.records.timed_run import TimedRun


class RankMemory(NamedTuple):
    """Bytes of one rank: what is there whatever the candidate, and for each sequence in flight."""

    static: int
    activations: float

    def peak(self, in_flight: int) -> int:
        """Return the peak with so many sequences in flight."""
        return self.static + round(self.activations * in_flight)


def sequences_in_flight(ranks: int, candidate: Candidate) -> tuple[int, ...]:
    """Return, by rank, the most sequences whose activations it holds at once, a rank's stages together as one."""
    schedule = build_schedule(candidate.schedule, ranks, candidate.micro_batches, candidate.virtual_stages)
    held = (schedule.in_flight(rank) for rank in range(ranks))
    return tuple(-(-one * candidate.micro_batch_size // candidate.virtual_stages) for one in held)


def learn_memory(ranks: int, runs: Sequence[TimedRun]) -> tuple[RankMemory, ...] | None:
    """Return the memory of each rank; None where the peaks of runs do not tell it. Where runs give only the fullest
    rank, the first, which holds most micro-batches, is taken for it, and the others for no fuller."""
    told = [run for run in runs if run.peak_memory_bytes is not None]
    counts = {len(run.peak_memory_bytes or ()) for run in told}
    if counts not in ({1}, {ranks}):
        return None
    flights = [sequences_in_flight(ranks, run.candidate) for run in told]
    found = []
    for rank in range(counts.pop()):
        held = [flight[rank] for flight in flights]
        if len(set(held)) < 2:
            return None
        found.append(line(held, [(run.peak_memory_bytes or ())[rank] for run in told]))
    return tuple(found) if len(found) == ranks else (found[0],) * ranks


def line(held: Sequence[int], peaks: Sequence[int]) -> RankMemory:
    """Return the line through the peaks; neither part is below zero."""
    slope, static = np.polyfit(held, peaks, 1)
    if slope < 0:
        return RankMemory(max(peaks), 0.0)
    if static < 0:
        return RankMemory(0, float(np.dot(held, peaks) / np.dot(held, held)))
    return RankMemory(round(static), float(slope))
