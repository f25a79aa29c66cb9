"""Profile x Candidate -> Prediction: the schedule's own action order, simulated with measured times."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from math import exp, hypot, log
from statistics import median
from typing import NamedTuple

import numpy as np

from autotune.errors import InputError, UsageError
from autotune.predict.breakdown import break_down
from autotune.predict.extrapolation import Doubt, basis_of, doubt
from autotune.predict.memory import device_bytes, peak_memory
from autotune.predict.orders import BACKWARD, FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from autotune.predict.recut import recut
from autotune.predict.reduction import seconds_after, seconds_in_backward
from autotune.predict.schedules import Schedule, build_schedule
from autotune.predict.simulator.contention import slowdown_with
from autotune.predict.simulator.simulate import Costs, Seconds, tail_seconds
from autotune.predict.simulator.wavefront import StepTime, step_time
from autotune.predict.uncertainty import QUANTILE, interval, total_sigma
from autotune.records.job.recompute import Recompute, modes_of
from autotune.records.job.split import Split, show_split
from autotune.records.prediction import Candidate, Prediction, TimeSplit, Uncertainty
from autotune.records.profile import ROUNDS, Profile, StageProfile, profile_of
from autotune.records.stage_costs import StageTime
from autotune.schedule_spec import SCHEDULES, ScheduleName, nearest_legal_m, runnable, why_illegal

# Relative standard deviations of the model's own errors, from `make bench` (real and replay): ranks that share cores
# disturb each other in ways that no profile holds; ranks with a device of their own hardly do.
SHARED_COMMON, SHARED_PLACEMENT, SHARED_MISFIT = 0.04, 0.03, 0.03
OWN_COMMON, OWN_PLACEMENT, OWN_MISFIT = 0.012, 0.009, 0.01
# Stage times from a paper or a log, without what the runtime takes beside them: zero-bubble's runs are 0 to 8 % longer
# than a simulation from their stage times (`make bench`, backtest).
TYPED_COMMON = 0.05
# GPUs of their own, until real ones have told: a guess, wide on purpose. Placement: receives that wait on a GPU take a
# part of it, and several stages per rank have more of them.
GPU_COMMON, GPU_PLACEMENT, GPU_MISFIT = 0.08, 0.03, 0.03
OVERHEAD = 0.25  # the runtime's cost per action may be off by a quarter


def candidates_for(
    counts: Sequence[int],
    schedules: Sequence[ScheduleName],
    virtual_stages: Sequence[int],
    ranks: int,
    layers: int,
    batch: int,
    micro_batch_size: int | None = None,
    split: Split | None = None,
    modes: Sequence[Recompute] = (Recompute.NONE,),
    replicas: int = 1,
) -> tuple[list[Candidate], list[str]]:
    """Return every candidate in the order of m, and a note for each reason why some m were left out.

    Where a schedule refuses m, what stands in for it takes its place (GPipe for 1F1B where m < ranks).
    ``virtual_stages``: what to try for schedules that leave the choice. ``micro_batch_size`` fixes b, so that the batch
    grows with m; else b = ceil(batch / m) and the rest is padding. ``split``: the layers of each stage, which then says
    how many lie on a rank. ``modes``: what all stages may recompute. ``replicas``: of the pipeline. Raises UsageError
    where nothing is left.
    """
    if split is not None:
        check_split(split, ranks, layers)
        virtual_stages = (len(split) // ranks,)
    found: dict[tuple[int, str, int, Recompute], Candidate] = {}
    refused: dict[str, list[int]] = {}
    for count, (name, v), mode in product(counts, schedule_variants(schedules, virtual_stages), modes):
        schedule = runnable(name, ranks, count)
        reason = illegal_reason(schedule, ranks, v, count, layers)
        reason = illegal_cut(name, v, split, ranks) or reason or illegal_mode(schedule, mode)
        if reason:
            refused.setdefault(reason, []).append(count)
            continue
        found[count, schedule, v, mode] = Candidate(
            micro_batches=count,
            micro_batch_size=micro_batch_size or -(-batch // count),
            sequences=count * micro_batch_size if micro_batch_size else batch,
            schedule=schedule,
            virtual_stages=v,
            split=split,
            recompute=modes_of(mode, ranks * v),
            replicas=replicas,
        )
    notes = [
        f"not tried: m = {', '.join(map(str, sorted(set(left_out))))}: {reason}" for reason, left_out in refused.items()
    ]
    if not found:
        raise UsageError("; ".join(notes))
    return list(found.values()), notes


def profile_for(profiles: Sequence[Profile], candidate: Candidate) -> Profile:
    """Return what a candidate's stages cost, from one or several of ``profiles``."""
    profile = profile_of(profiles, candidate.virtual_stages, candidate.recompute)
    assert profile is not None, "every candidate's stages were profiled"
    return recut(profile, candidate.split)


def check_split(split: Split, ranks: int, layers: int) -> None:
    """Raise UsageError where a cut does not hold ``layers``, or has not as many stages on every rank."""
    if sum(split) != layers:
        raise UsageError(f"--split: {show_split(split)} holds {sum(split)} layers, the model has {layers}")
    if len(split) % ranks:
        raise UsageError(f"--split: {len(split)} stages cannot lie on {ranks} ranks equally; give a multiple")


def schedule_variants(
    schedules: Sequence[ScheduleName], virtual_stages: Sequence[int]
) -> list[tuple[ScheduleName, int]]:
    """Return every schedule with every number of stages per rank that it may have."""
    several = sorted(set(virtual_stages))
    return [(name, v) for name in schedules for v in ([1] if SCHEDULES[name].has_one_stage else several)]


def illegal_cut(name: str, virtual_stages: int, split: Split | None, ranks: int) -> str | None:
    """Return why a schedule cannot run a given cut; None if it can."""
    if split is None or len(split) == ranks * virtual_stages:
        return None
    stages = f"{virtual_stages} stage{'s' if virtual_stages > 1 else ''}"
    return f"{name} has {stages} on each of {ranks} ranks, --split has {len(split)} in all"


def illegal_mode(name: ScheduleName, mode: Recompute) -> str | None:
    """Return why stages of a schedule cannot recompute so; None if they can.

    torch recomputes full checkpoints in every pass of a backward, selective ones in one alone: "You are only allowed to
    backward once on any region computed under selective activation checkpoint".
    """
    if mode is Recompute.SELECTIVE and SCHEDULES[name].backward == "split":
        return f"torch's selective recomputation takes one backward, and {name} splits it in two; full takes both"
    return None


def illegal_reason(name: str, ranks: int, virtual_stages: int, count: int, layers: int) -> str | None:
    """Return why a candidate cannot run, and which m its schedule would take instead; None if it can."""
    if ranks * virtual_stages > layers:
        return f"{name} with {virtual_stages} stages on each of {ranks} ranks needs as many layers (given: {layers})"
    reason = why_illegal(name, ranks, virtual_stages, count)
    nearest = nearest_legal_m(name, ranks, virtual_stages, count)
    return f"{reason}; the nearest it takes is {nearest}" if reason and nearest else reason


def link_seconds(profile: Profile, message: int) -> Mapping[tuple[int, int], float]:
    """Return seconds of one message from a rank to another; 0 on one rank, and where the profile has no such link.

    Within a host beside those of all other links, where they were measured together; what leaves a host is alone here,
    because ``Profile.link_contention`` says how messages slow each other there.
    """
    found: defaultdict[tuple[int, int], float] = defaultdict(float)
    hosts = profile.hosts
    for link in profile.links:
        is_within = hosts[link.from_] == hosts[link.to]
        found[link.from_, link.to] += link.seconds_together(message) if is_within else link.seconds(message)
    return found


def action_overheads(profile: Profile, schedule: Schedule) -> Seconds:
    """Return float64[4, S]: seconds of torch's runtime for an action, by kind and stage: for the action itself, and for
    every message that it takes from another rank or gives to one. A weight gradient has none."""
    crossing = [here != there for here, there in pairwise(schedule.stage_ranks)]
    messages = np.array([0, *crossing], np.float64) + np.array([*crossing, 0])
    found: Seconds = profile.action_overhead_s + profile.message_overhead_s * np.tile(messages, (4, 1))
    found[WEIGHT_GRADIENT] = profile.action_overhead_s
    return found


def host_seconds(profile: Profile, micro_batch_size: int) -> list[list[float]] | None:
    """Return float[4][S]: the CPU seconds to start an action beside a GPU, by kind and stage: the runtime's own, and
    those of the stage's kernels, of which each action has the share that it has of the pass. None where none were
    measured."""
    if not profile.host_action_s and not any(row.host_s for stage in profile.stages for row in stage.time_s):
        return None

    def row(part: Callable[[StageTime], float]) -> list[float]:
        def host(times: StageTime) -> float:
            whole = times.t_f + times.backward
            return (times.host_s or 0.0) * part(times) / whole if whole else 0.0

        return [profile.host_action_s + stage.seconds(micro_batch_size, host) for stage in profile.stages]

    whole = row(lambda times: times.backward)
    inputs, weights = row(lambda times: times.input_gradient), row(lambda times: times.weight_gradient)
    return [row(lambda times: times.t_f), whole, [profile.host_action_s, *inputs[1:]], [whole[0], *weights[1:]]]


def stage_costs(profile: Profile, micro_batch_size: int, schedule: Schedule) -> Costs:
    """Return what every action and message of this micro-batch size costs; the runtime's overhead is part of each
    action.

    torch leaves the whole backward of the first stage, which has no input gradient, to its weight gradient.
    """
    message, overheads = profile.message_size(micro_batch_size), action_overheads(profile, schedule)

    def row(kind: int, part: Callable[[StageTime], float]) -> list[float]:
        own = overheads[kind].tolist()
        return [stage.seconds(micro_batch_size, part) + own[at] for at, stage in enumerate(profile.stages)]

    whole = profile.stages[0].seconds(micro_batch_size, lambda times: times.backward)
    boundaries, links = list(pairwise(schedule.stage_ranks)), link_seconds(profile, message)
    return Costs(
        forward=row(FORWARD, lambda times: times.t_f),
        backward=row(BACKWARD, lambda times: times.backward),
        input_gradient=[
            float(overheads[INPUT_GRADIENT, 0]),
            *row(INPUT_GRADIENT, lambda times: times.input_gradient)[1:],
        ],
        weight_gradient=[
            whole + float(overheads[WEIGHT_GRADIENT, 0]),
            *row(WEIGHT_GRADIENT, lambda times: times.weight_gradient)[1:],
        ],
        activation_link=[links[here, there] for here, there in boundaries],
        gradient_link=[links[there, here] for here, there in boundaries],
        slowdown=profile.slowdown,
        hosts=profile.hosts,
        link_contention=profile.link_contention,
        has_streams=profile.environment.device == "cuda",
        host=host_seconds(profile, micro_batch_size),
        reduction=seconds_in_backward(profile, micro_batch_size, schedule),
    )


def slowdown_together(profile: Profile) -> float:
    """Return how many times slower a rank runs while all of its host compute; of the fullest host."""
    together = profile.environment.most_on_a_host(profile.devices)
    return slowdown_with(together, profile.shared.slowdown) if profile.shared else 1.0


class After(NamedTuple):
    """What each rank does when its last action is done, seconds: its ``reduction``, where no backward reduced, and its
    ``optimizer`` step."""

    reduction: list[float]
    optimizer: list[float]

    @property
    def seconds(self) -> list[float]:
        """Both together, of each rank."""
        return [sum(parts) for parts in zip(*self, strict=True)]


def after_actions(profile: Profile, schedule: Schedule) -> After:
    """Return what each rank does after its last action, all of them side by side."""
    optimizer = schedule.by_rank([stage.optimizer_s for stage in profile.stages]).tolist()
    pace = slowdown_together(profile)
    return After(*([pace * own for own in seconds] for seconds in (seconds_after(profile, schedule), optimizer)))


def relative_spread(profile: Profile, micro_batch_size: int) -> float:
    """Return relative standard error of the timed medians at the nearest measured size; 0 where there are no samples.

    Of every stage's forward and backward, as they weigh in the sum of all (1.25 sigma / sqrt(n) for a median).
    """
    total, variance = 0.0, 0.0
    for stage in profile.stages:
        row = min(stage.time_s, key=lambda r: abs(r.micro_batch_size - micro_batch_size))
        for middle, samples in ((row.t_f, row.samples_f), (row.backward, row.samples_bw)):
            total += middle
            if samples:
                variance += (1.25 * 1.48 * median(abs(sample - middle) for sample in samples)) ** 2 / len(samples)
    return float(variance**0.5 / total) if total else 0.0


def model_errors(profile: Profile) -> tuple[float, float, float]:
    """Return the relative standard deviations of the model's own errors: of all candidates alike, of those whose stages
    lie alike, of each by itself."""
    if profile.estimate is not None:
        return profile.estimate.common, 0.0, profile.estimate.own
    if profile.environment.device == "cuda":
        return GPU_COMMON, GPU_PLACEMENT, GPU_MISFIT
    if profile.shared is not None:
        return SHARED_COMMON, SHARED_PLACEMENT, SHARED_MISFIT
    if is_typed(profile):
        return TYPED_COMMON, OWN_PLACEMENT, OWN_MISFIT
    return OWN_COMMON, OWN_PLACEMENT, OWN_MISFIT


def is_typed(profile: Profile) -> bool:
    """Return whether the profile was written by hand: no device, and no sample behind any time."""
    if profile.environment.device is not None or profile.calibrations:
        return False
    return not any(row.samples_f for stage in profile.stages for row in stage.time_s)


def uncertainty(profile: Profile, candidate: Candidate, overhead_s: float, step_time_s: float) -> Uncertainty:
    """Return how far the prediction may be off, before any candidate was measured.

    ``overhead_s``: the runtime's for the mean forward or backward. Its share is that of the m·v + p-1 forwards and as
    many backwards of the longest chain. A candidate is measured at one moment of a machine that drifts, the profile was
    measured in several rounds: of the drift, what their mean leaves open is an error of the model.
    """
    common, placement, misfit = model_errors(profile)
    chain = 2 * (candidate.micro_batches * candidate.virtual_stages + profile.ranks - 1)
    pace = slowdown_together(profile)
    share = min(1.0, chain * pace * overhead_s / step_time_s)
    spread, rounds = relative_spread(profile, candidate.micro_batch_size), profile.drift / ROUNDS**0.5
    return Uncertainty(
        common=float(hypot(rounds, common)),
        overhead=OVERHEAD * share,
        placement=placement,
        own=float(hypot(spread, rounds, misfit, doubt(profile, candidate.micro_batch_size).sigma)),
        moment=float((profile.drift**2 - rounds**2) ** 0.5),
    )


class SimulatedStep(NamedTuple):
    """A candidate's step as simulated. ``seconds``: all of it; ``after``: the actions of each rank."""

    schedule: Schedule
    costs: Costs
    totals: StepTime
    after: After
    seconds: float


def simulate_step(profile: Profile, candidate: Candidate) -> SimulatedStep:
    """Return how long a step takes and nothing else; raise InputError where it takes no time at all.

    The profile must be of as many stages per rank as the candidate has.
    """
    schedule = build_schedule(candidate.schedule, profile.ranks, candidate.micro_batches, candidate.virtual_stages)
    costs = stage_costs(profile, candidate.micro_batch_size, schedule)
    totals = step_time(schedule, costs)
    after = after_actions(profile, schedule)
    step = totals.makespan + tail_seconds(totals.rank_ends, after.seconds) + profile.step_overhead_s
    if step <= 0:
        raise InputError("profile: every time_s is zero, so there is nothing to predict; give t_f and t_bw in seconds")
    return SimulatedStep(schedule, costs, totals, after, step)


def predict(profile: Profile, candidate: Candidate, memory_limit: int | None) -> Prediction:
    """Predict one step of ``candidate``. ``memory_limit``: bytes per rank, None for unlimited. Raises InputError as
    ``simulate_step``."""
    schedule, costs, totals, after, step = simulate_step(profile, candidate)
    overheads = action_overheads(profile, schedule)
    unsure = uncertainty(profile, candidate, float(overheads[[FORWARD, BACKWARD]].mean()), step)
    tail_s = step - totals.makespan
    low, high = step_interval(step, tail_s, unsure, doubt(profile, candidate.micro_batch_size))
    split = break_down(
        schedule,
        costs,
        totals,
        best_s=[best_seconds(stage) for stage in profile.stages],
        sequences=candidate.sequences,
        micro_batch_size=candidate.micro_batch_size,
        optimizer_s=after.optimizer,
        reduction_s=after.reduction,
        overhead_s=overheads,
        step_overhead_s=profile.step_overhead_s,
    )
    peaks = peak_memory(profile, candidate, schedule)
    taken = device_bytes(profile, peaks) if peaks else None
    tokens = profile.workload.seq_len
    return Prediction(
        step_time_s=step,
        step_time_low_s=low,
        step_time_high_s=high,
        basis=basis_of(profile, candidate.micro_batch_size),
        uncertainty=unsure,
        throughput_seq_s=candidate.job_sequences / step,
        throughput_tokens_s=candidate.job_sequences * tokens / step if tokens else None,
        bubble_fraction=totals.bubble_fraction,
        in_flight=tuple(schedule.in_flight(rank) for rank in range(schedule.ranks)),
        peak_memory_bytes=tuple(peak.total for peak in peaks) if peaks else None,
        memory_split_bytes=peaks,
        device_memory_bytes=taken,
        fits=fits(profile, candidate, taken, memory_limit),
        time_split_s=TimeSplit(**split.mean()),
        rank_time_split_s=tuple(TimeSplit(**split.of(rank)) for rank in range(schedule.ranks)),
    )


def step_interval(step_s: float, tail_s: float, unsure: Uncertainty, doubted: Doubt) -> tuple[float, float]:
    """Return the 90 % interval of a step. ``tail_s``: the part of it that does not depend on the micro-batch size.

    Errors of the model and ``doubted`` times are independent, so their logarithms add up as the sides of a right angle;
    either side of ``doubted`` by itself, because they are far from alike.
    """
    if doubted == Doubt():
        return interval(step_s, total_sigma(unsure))
    model = QUANTILE * max(0.0, total_sigma(unsure) ** 2 - doubted.sigma**2) ** 0.5
    moving = step_s - tail_s
    low, high = step_s - moving * (1 - doubted.low), step_s + moving * (doubted.high - 1)
    return step_s * exp(-hypot(model, log(step_s / low))), step_s * exp(hypot(model, log(high / step_s)))


def fits(profile: Profile, candidate: Candidate, taken: tuple[int, ...] | None, limit: int | None) -> bool | None:
    """Return whether every rank stays within its memory; None where nothing is known. What did not fit alone
    does not."""
    if profile.no_room_for is not None and candidate.micro_batch_size >= profile.no_room_for:
        return False
    return None if taken is None or limit is None else max(taken) <= limit


def best_seconds(stage: StageProfile) -> float:
    """Return seconds of forward and backward per sequence at the stage's best measured micro-batch size."""
    return min((row.t_f + row.backward) / row.micro_batch_size for row in stage.time_s)
