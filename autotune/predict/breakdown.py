"""Where the time of a step goes: parts that add up to the step, for every rank.

::

    step        |======================================== of any rank =======================================|
    busy        | compute | padding | granularity | overhead | reduction | slowdown |
    idle                                                                | communication | imbalance | bubble |
    then                                                                                          optimizer, overhead

What idle time is due to is found by asking how long the step would take without it: with free links; and with free
links and equal stages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from autotune.predict.orders import BACKWARD, FORWARD
from autotune.predict.schedules import Schedule
from autotune.predict.simulator.posting import Receives
from autotune.predict.simulator.simulate import Costs, Seconds, Timeline, tail_seconds
from autotune.predict.simulator.wavefront import StepTime, step_time


@dataclass(frozen=True, eq=False)
class StepBreakdown:
    """Seconds of one step, float64[p] each, none below 0; on every rank they add up to ``total``, the step.

    ``compute``        the sequences of the batch, each at the best seconds per sequence that its stages ever reach
    ``padding``        rows that fill up the last micro-batches, at the same pace
    ``granularity``    what this micro-batch size (and a split backward) takes longer than the best pace
    ``slowdown``       what ranks that share cores take longer because of each other
    ``communication``  idle that free links would save
    ``imbalance``      idle that equal stages would save; and waiting for the last rank's optimizer
    ``bubble``         idle that remains with free links and equal stages
    ``reduction``      what the last backward of its stages is prolonged by, because replicas add up gradients in it, or
                       what they take for that after the rank's last action
    ``optimizer``      the rank's own optimizer step
    ``overhead``       what the runtime takes for each action, and for each step; and what a device waits for a CPU that
                       is late in starting its next action
    """

    compute: Seconds
    padding: Seconds
    granularity: Seconds
    slowdown: Seconds
    communication: Seconds
    imbalance: Seconds
    bubble: Seconds
    reduction: Seconds
    optimizer: Seconds
    overhead: Seconds

    @property
    def total(self) -> Seconds:
        """float64[p]: the step, the same for every rank but for rounding."""
        step: Seconds = np.sum([getattr(self, part.name) for part in fields(self)], axis=0)
        return step

    def of(self, rank: int) -> dict[str, float]:
        """Return each part of one rank's step."""
        return {part.name: float(getattr(self, part.name)[rank]) for part in fields(self)}

    def mean(self) -> dict[str, float]:
        """Return each part averaged over the ranks; they add up to the step."""
        return {part.name: float(getattr(self, part.name).mean()) for part in fields(self)}


def break_down(
    schedule: Schedule,
    costs: Costs,
    step: StepTime | Timeline,
    *,
    best_s: Sequence[float],
    sequences: int,
    micro_batch_size: int,
    optimizer_s: Sequence[float],
    reduction_s: ArrayLike = 0.0,
    overhead_s: ArrayLike = 0.0,
    step_overhead_s: float = 0.0,
    receives: Receives = "torch",
) -> StepBreakdown:
    """Break down a step of ``step.makespan`` + ``tail_seconds`` + ``step_overhead_s`` seconds.

    ``step`` is what ``step_time`` or ``simulate`` make of ``costs``. ``overhead_s``: the runtime's part of these
    actions, the same for all or float64[4, S].
    ``best_s[s]``: seconds of forward and backward of one sequence on stage s, at its best micro-batch size.
    ``sequences``: those of the batch, at most m x ``micro_batch_size``; the others are padding.
    ``optimizer_s[r]``: seconds of the optimizer step of rank r, at the pace that it has in the step.
    ``reduction_s[r]``: of the reduction before it, where no backward reduces.
    Two more steps are simulated, with free links and with equal stages; where a CPU starts the actions, one without
    waiting for it.
    """
    optimizer, reduced = np.array(optimizer_s, np.float64), np.asarray(reduction_s, np.float64)
    compute, granularity, overhead = _work(schedule, costs, np.array(best_s), micro_batch_size, overhead_s)
    reduction = schedule.by_rank(costs.reduction or [0.0] * costs.stages)
    done = compute + granularity + overhead + reduction
    busy = done if costs.slowdown is None and costs.host is None else step.busy
    own = optimizer + reduced
    after = tail_seconds(step.rank_ends, own.tolist()) - own  # below 0: of its idle time before the last action
    idle = np.maximum(0.0, step.makespan - busy + np.minimum(0.0, after))
    pace = np.minimum(1.0, np.divide(busy, done, out=np.ones_like(done), where=done > 0))
    share = sequences / (schedule.micro_batches * micro_batch_size)
    beyond, late, makespan = np.maximum(0.0, busy - done), np.zeros_like(idle), step.makespan
    if costs.host is not None:  # no cores are shared then: what is busy beyond its work waits for the CPU
        costs = costs.with_free_host()
        makespan = step_time(schedule, costs, receives).makespan
        waited = np.clip(step.makespan - makespan - beyond, 0.0, idle)
        idle, late, beyond = idle - waited, beyond + waited, late
    communication, imbalance, bubble = _idle(schedule, costs, makespan, idle, receives)
    return StepBreakdown(
        compute=pace * compute * share,
        padding=pace * compute * (1.0 - share),
        granularity=pace * granularity,
        slowdown=beyond,
        communication=communication,
        imbalance=imbalance + np.maximum(0.0, after),
        bubble=bubble,
        reduction=pace * reduction + reduced,
        optimizer=optimizer,
        overhead=pace * overhead + late + step_overhead_s,
    )


def _work(
    schedule: Schedule, costs: Costs, best: Seconds, micro_batch_size: int, overhead_s: ArrayLike
) -> tuple[Seconds, Seconds, Seconds]:
    """Seconds of each rank undisturbed: computing at the best speed, beyond that, and the runtime's; float64[p]
    each."""
    counts = action_counts(schedule)
    overhead = np.minimum(np.asarray(overhead_s), costs.work()) * counts
    computed = (costs.work() * counts - overhead).sum(axis=0)
    at_best = np.minimum(computed, schedule.micro_batches * micro_batch_size * best)
    beyond = computed - at_best
    return schedule.by_rank(at_best), schedule.by_rank(beyond), schedule.by_rank(overhead.sum(axis=0))


def action_counts(schedule: Schedule) -> Seconds:
    """Return float64[4, S]: how many actions of each kind each stage runs in a step."""
    counts = np.zeros(4 * schedule.stages)
    if schedule.runtime != "lowered":  # known, and the orders of a thousand ranks take a second to make
        counts.reshape(4, -1)[[FORWARD, BACKWARD]] = schedule.micro_batches
        return counts.reshape(4, -1)
    for rank in range(schedule.ranks):
        order = schedule.order(rank)
        counts += np.bincount(order.kind * np.int64(schedule.stages) + order.stage, minlength=len(counts))
    return counts.reshape(4, -1)


def _idle(
    schedule: Schedule, costs: Costs, makespan: float, idle: Seconds, receives: Receives
) -> tuple[Seconds, Seconds, Seconds]:
    """Divide each rank's idle seconds into communication, imbalance and bubble; float64[p] each.

    Communication is what free links save, the same for all ranks. The bubble is in all as large as with free links and
    equal stages; it is what all ranks have in common, and what single ranks idle beyond that is imbalance.
    """
    free = costs.with_free_links()
    saved = max(0.0, makespan - step_time(schedule, free, receives).makespan)
    communication = np.minimum(saved, idle)
    equal = step_time(schedule, free.with_equal_stages(), receives)
    rest = idle - communication
    bubble = np.minimum(rest, level(rest, float((equal.makespan - equal.busy).sum())))
    return communication, rest - bubble, bubble


def level(heights: Seconds, total: float) -> float:
    """Return the level L at which min(height, L) of all ``heights`` add up to ``total``; infinite where even they do
    not.

    ::

        heights 1 3 5, total 6: level 2.5        5 |     #
                                                 3 |   # #
                                               2.5 |-  = =
                                                 1 | = = =
    """
    ordered = np.sort(heights)
    below = np.concatenate(([0.0], ordered.cumsum()[:-1]))
    levels = (total - below) / np.arange(len(ordered), 0, -1)
    reached = levels <= ordered
    return max(0.0, float(levels[reached.argmax()])) if reached.any() else float("inf")
