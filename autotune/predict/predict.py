"""Profile x Candidate -> Prediction: the schedule's own action order, run on paper with measured times."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

from autotune.config import ScheduleName
from autotune.errors import InputError
from autotune.pipeline.commands import StageTime
from autotune.predict.memory import message_size, peak_memory
from autotune.predict.record import Candidate, Prediction, TimeSplit
from autotune.predict.schedules import build_schedule
from autotune.predict.simulate import Costs, Timeline, simulate
from autotune.profile.record import Profile, StageProfile, interpolate


def candidates_for(
    counts: tuple[int, ...],
    schedules: tuple[ScheduleName, ...],
    stages: int,
    batch: int,
    micro_batch_size: int | None = None,
) -> list[Candidate]:
    """Every candidate in the order of m. Where m < stages torch's 1F1B refuses to run and GPipe takes its place.

    ``micro_batch_size`` fixes b, so that the batch grows with m; else b = ceil(batch / m) and the rest is padding.
    """
    found: dict[tuple[int, str], Candidate] = {}
    for count in counts:
        for name in schedules:
            runnable: ScheduleName = "GPipe" if name == "1F1B" and count < stages else name
            found[count, runnable] = Candidate(
                micro_batches=count,
                micro_batch_size=micro_batch_size or -(-batch // count),
                sequences=count * micro_batch_size if micro_batch_size else batch,
                schedule=runnable,
            )
    return list(found.values())


def stage_seconds(stage: StageProfile, micro_batch_size: int, part: Callable[[StageTime], float]) -> float:
    """``part`` of the stage's time (t_f, say) at any micro-batch size, between and beyond the measured ones."""
    sizes = [row.micro_batch_size for row in stage.time_s]
    return interpolate(sizes, [part(row) for row in stage.time_s], micro_batch_size)


def link_seconds(profile: Profile, source: int, target: int, message: int) -> float:
    """Seconds of one message between two stages; 0 where the profile has no such link."""
    return sum(link.seconds(message) for link in profile.links if (link.from_, link.to) == (source, target))


def stage_costs(profile: Profile, micro_batch_size: int) -> Costs:
    """What every action and message of this micro-batch size costs; the runtime's overhead is part of each action."""
    size, overhead = micro_batch_size, profile.message_overhead_s
    message = message_size(profile, size)
    backward = [stage_seconds(stage, size, lambda row: row.backward) + overhead for stage in profile.stages]
    boundaries = range(len(profile.stages) - 1)
    return Costs(
        forward=[stage_seconds(stage, size, lambda row: row.t_f) + overhead for stage in profile.stages],
        backward=backward,
        input_gradient=backward,
        weight_gradient=[0.0] * len(profile.stages),
        activation_link=[link_seconds(profile, s, s + 1, message) for s in boundaries],
        gradient_link=[link_seconds(profile, s + 1, s, message) for s in boundaries],
        slowdown=profile.shared.slowdown if profile.shared else None,
    )


def optimizer_seconds(profile: Profile) -> float:
    """The optimizer steps of all ranks, which run side by side: the slowest, at the pace of all of them together."""
    slowest = max(stage.optimizer_s for stage in profile.stages)
    shared = profile.shared
    return slowest * shared.slowdown[min(len(profile.stages), len(shared.slowdown)) - 1] if shared else slowest


def relative_spread(profile: Profile, micro_batch_size: int) -> float:
    """Typical relative deviation of the timing samples at the nearest measured size; 0 where there are none."""
    deviations = []
    for stage in profile.stages:
        row = min(stage.time_s, key=lambda r: abs(r.micro_batch_size - micro_batch_size))
        for middle, samples in ((row.t_f, row.samples_f), (row.backward, row.samples_bw)):
            if samples and middle > 0:
                deviations.append(1.48 * median(abs(sample - middle) for sample in samples) / middle)
    return max(deviations, default=0.0)


def split_time(timeline: Timeline, free: Timeline, profile: Profile, optimizer_s: float) -> TimeSplit:
    """Divides the mean rank's step: computing, waiting for messages under way, idle, optimizer, overhead.

    ``free`` is the same step with links that cost nothing; what it saves is exposed communication.
    """
    actions = len(timeline.starts) / timeline.schedule.ranks
    overhead = profile.message_overhead_s * actions
    busy = float(timeline.busy.mean())
    communication = max(0.0, timeline.makespan - free.makespan)
    return TimeSplit(
        compute=max(0.0, busy - overhead),
        bubble=max(0.0, timeline.makespan - busy - communication),
        communication=min(communication, max(0.0, timeline.makespan - busy)),
        optimizer=optimizer_s,
        overhead=min(busy, overhead) + profile.step_overhead_s,
    )


def predict(profile: Profile, candidate: Candidate, memory_limit: int | None) -> Prediction:
    """Predicts one step of ``candidate``. ``memory_limit``: bytes per rank, None for unlimited."""
    schedule = build_schedule(candidate.schedule, len(profile.stages), candidate.micro_batches)
    costs = stage_costs(profile, candidate.micro_batch_size)
    timeline = simulate(schedule, costs)
    nothing = [0.0] * (len(profile.stages) - 1)
    free = simulate(schedule, replace(costs, activation_link=nothing, gradient_link=nothing))
    optimizer_s = optimizer_seconds(profile)
    step = timeline.makespan + optimizer_s + profile.step_overhead_s
    if step <= 0:
        raise InputError("profile: every time_s is zero, so there is nothing to predict; give t_f and t_bw in seconds")
    spread = relative_spread(profile, candidate.micro_batch_size)
    peaks = peak_memory(profile, candidate, schedule)
    tokens = profile.workload.seq_len
    return Prediction(
        step_time_s=step,
        step_time_low_s=step * max(0.0, 1 - 1.64 * spread),
        step_time_high_s=step * (1 + 1.64 * spread),
        throughput_seq_s=candidate.sequences / step,
        throughput_tokens_s=candidate.sequences * tokens / step if tokens else None,
        bubble_fraction=timeline.bubble_fraction,
        in_flight=tuple(schedule.in_flight(rank) for rank in range(schedule.ranks)),
        peak_memory_bytes=peaks,
        fits=None if peaks is None or memory_limit is None else max(peaks) <= memory_limit,
        time_split_s=split_time(timeline, free, profile, optimizer_s),
    )
