"""A short real pipeline run of one candidate, from the controller's side: a Measurement or a Failure comes back."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from math import inf, sqrt
from statistics import fmean
from typing import Any

from autotune.pipeline.control.commands import (
    LONGEST_S,
    Build,
    Describe,
    Prepare,
    Primed,
    StageFacts,
    Step,
    StepTimes,
    step_seconds,
)
from autotune.pipeline.control.ranks import START_TIMEOUT_S, RankFailure, Ranks
from autotune.pipeline.control.starting import not_started
from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.records.job.workload import AnyWorkload
from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.plain import decode
from autotune.workload.partition import stage_ranks

PATIENCE = 20  # times the predicted step
IDLE_S, IDLE_STEPS = 5.0, 3  # the most that ranks which compute may be idle: seconds, predicted steps
FLOOR_S, FIRST_FLOOR_S = 10.0, 20.0  # no step is given less time than this, nor the first
BUILD_TIMEOUT_S = 600.0


def by_stage(answers: list[Any], placement: Placement) -> list[Any]:
    """Return what each rank of one pipeline answered of each of its stages, in the order of the stages."""
    left = [iter(answer) for answer in answers]
    return [next(left[rank]) for rank in stage_ranks(len(answers), placement.virtual_stages, placement.v_shaped)]


def describe(ranks: Ranks, workload: AnyWorkload, placement: Placement) -> list[StageFacts]:
    """Build every stage on paper; raise RankFailure."""
    answers = ranks.ask(Describe(workload=workload, placement=placement), BUILD_TIMEOUT_S)
    return decode(list[StageFacts], by_stage(answers[: workload.stages], placement))


def build(ranks: Ranks, workload: AnyWorkload, placement: Placement) -> list[StageFacts]:
    """Start the ranks if need be, and build every stage.

    Raises RankFailure where the stages cannot be built, DeviceError where the ranks do not even start.
    """
    has_started = True

    def work() -> list[Any]:
        nonlocal has_started
        if not ranks.alive:
            has_started = False
            ranks.start()
            ranks.ask(Describe(workload=workload, placement=placement), START_TIMEOUT_S)
        has_started = True
        return ranks.ask(Build(workload=workload, placement=placement), BUILD_TIMEOUT_S)

    try:
        answers = ranks.retry_lost_hosts(work)
    except RankFailure as error:
        if has_started:
            raise
        raise not_started(ranks.device, error.failure) from None
    ranks.placement = placement
    return decode(list[StageFacts], by_stage(answers[: workload.stages], placement))


def measure_candidate(
    ranks: Ranks,
    workload: AnyWorkload,
    plan: Prepare,
    expected_step_s: float,
    steps: int,
    keep_going: KeepGoing,
    seq_len: int | None = None,
    may_idle: bool = False,
) -> Measurement | Failure:
    """Run one untimed step and then up to ``steps`` timed ones. ``expected_step_s`` sets the time limit: 20 steps.

    ``seq_len``: tokens per sequence, None where not known. ``may_idle``: ranks may do nothing all that time.

    Ranks that died in an earlier candidate are replaced first, and the model is placed as this candidate needs it.
    Raises DeviceError where they cannot be replaced, because no candidate is to blame for that.
    """
    first_s, later_s, idle_s = time_limits(expected_step_s, may_idle)
    times: list[float] = []
    held: list[list[int | None]] = []  # by step, the untimed one too, by rank
    retries: list[list[int]] = []  # by step and rank
    loss = None
    try:
        if not ranks.alive or ranks.placement != plan.placement:
            build(ranks, workload, plan.placement)
        primed = decode(list[Primed], ranks.ask(plan, first_s, idle_s))
        held.append([answer.held_bytes for answer in primed])
        for number in range(steps):
            answers = run_step(ranks, Step(), later_s, idle_s)
            times.append(step_seconds(answers))
            held.append([answer.held_bytes for answer in answers])
            retries.append([answer.alloc_retries for answer in answers])
            loss = mean_loss(answers)
            if not keep_going(number, times[-1]):
                break
    except RankFailure as error:
        return error.failure
    p = workload.stages
    return Measurement.of(
        tuple(times),
        plan.sequences * plan.replicas,
        seq_len,
        peak_memory_bytes=fullest(peak_memory(primed), p),
        device_memory_bytes=fullest(device_memory(primed), p),
        loss=loss,
        first_loss=mean_loss(primed),
        gradient_norm=gradient_norm(primed[:p]),
        growth_bytes=fullest(growth(held), p),
        alloc_retries=fullest(tuple(map(sum, zip(*retries, strict=True))), p),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        pruned=len(times) < steps,
    )


def run_step(ranks: Ranks, command: Step, timeout_s: float, idle_s: float = inf) -> list[StepTimes]:
    """Run one step of the prepared candidate, by rank, on one clock."""
    answers = decode(list[StepTimes], ranks.ask(command, timeout_s, idle_s))
    return on_one_clock(answers, ranks.hosts or ("",) * len(answers))


def on_one_clock(step: list[StepTimes], hosts: Sequence[str]) -> list[StepTimes]:
    """Return the step with the clock of every host set so that its first rank begins at 0.

    Clocks of different hosts have nothing in common, but all ranks begin together: they have just left a barrier, which
    ends on all hosts within about the latency of a message.
    """
    begun: dict[str, float] = {}
    for rank, host in zip(step, hosts, strict=True):
        begun[host] = min(rank.start_s, begun.get(host, inf))
    return [rank.shifted(-begun[host]) for rank, host in zip(step, hosts, strict=True)]


def time_limits(expected_step_s: float, may_idle: bool) -> tuple[float, float, float]:
    """Return seconds that the first step may take, that each later one may, and that ranks may spend on nothing.

    On a GPU the first two decide: CUDA waits for a device by asking it over and over, which looks like work. Were it to
    sleep instead, a device that computes would look as idle as one that waits for ever.
    """
    first_s, later_s = (min(LONGEST_S, max(floor, PATIENCE * expected_step_s)) for floor in (FIRST_FLOOR_S, FLOOR_S))
    return first_s, later_s, inf if may_idle else max(IDLE_S, IDLE_STEPS * expected_step_s)


def record_steps(
    ranks: Ranks,
    workload: AnyWorkload,
    plan: Prepare,
    expected_step_s: float,
    steps: int,
    may_idle: bool = False,
) -> list[list[StepTimes]]:
    """Record some steps of a candidate with all their actions, by step and rank of the first replica, after an untimed
    one; raise RankFailure."""
    first_s, later_s, idle_s = time_limits(expected_step_s, may_idle)
    if not ranks.alive or ranks.placement != plan.placement:
        build(ranks, workload, plan.placement)
    ranks.ask(plan, first_s, idle_s)
    return [run_step(ranks, Step(record=True), later_s, idle_s)[: workload.stages] for _ in range(steps)]


def fullest(of_ranks: tuple[int, ...] | None, p: int) -> tuple[int, ...] | None:
    """Return the most of the ranks that hold the same stages in several replicas, for each of ``p``."""
    return of_ranks and tuple(max(of_ranks[place::p]) for place in range(p))


def mean_loss(answers: Sequence[Primed | StepTimes]) -> float | None:
    """Return the loss over the batches of all replicas, which are of one size; None where stages only wait."""
    losses = [answer.loss for answer in answers if answer.loss is not None]
    return fmean(losses) if losses else None


def peak_memory(primed: list[Primed]) -> tuple[int, ...] | None:
    """Return the peak of each rank's allocator, or None where stages only wait."""
    known = [answer.peak_memory_bytes for answer in primed if answer.peak_memory_bytes is not None]
    return tuple(known) if len(known) == len(primed) else None


def gradient_norm(primed: list[Primed]) -> float | None:
    """Return 2-norm over the gradients of the ranks of a pipeline, each of which holds other parameters; None where
    stages only wait."""
    known = [answer.gradient_square_sum for answer in primed if answer.gradient_square_sum is not None]
    return sqrt(sum(known)) if len(known) == len(primed) else None


def growth(held: list[list[int | None]]) -> tuple[int, ...] | None:
    """Return what each step left behind on each rank, from what was ``held`` after every step, by rank.

    The least of all steps, of two at least: a leak makes every step leave something; what only one leaves is chance.
    """
    changes = []
    for counts in zip(*held, strict=True):
        known = [count for count in counts if count is not None]
        if len(known) < max(3, len(counts)):
            return None
        changes.append(min(after - before for before, after in pairwise(known)))
    return tuple(changes) or None


def device_memory(primed: list[Primed]) -> tuple[int, ...] | None:
    """Return bytes of each device that were not free, or None where the devices do not tell."""
    pairs = [(answer.reserved_bytes, answer.outside_bytes) for answer in primed]
    known = [reserved + outside for reserved, outside in pairs if reserved is not None and outside is not None]
    return tuple(known) if len(known) == len(pairs) else None
