"""One step on paper, with real durations: what ``autotune timeline`` shows, from a profile, a report or a CSV file."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autotune.errors import InputError, UsageError
from autotune.predict.custom import MOST_ACTIONS, read_schedule
from autotune.predict.orders import WEIGHT_GRADIENT
from autotune.predict.predict import after_actions, stage_costs
from autotune.predict.recut import recut
from autotune.predict.schedules import Schedule, ScheduleError, build_schedule
from autotune.predict.simulator.simulate import Costs, Timeline, simulate, tail_seconds
from autotune.records.base import read_json
from autotune.records.profile import Profile, profile_of, read_profile
from autotune.records.report import PREDICTION, REPORT, CandidateReport, Report
from autotune.report.load import read_report
from autotune.schedule_spec import SCHEDULES, default_schedule, nearest_legal_m, runnable, schedule_named, why_illegal

DEFAULT_BATCH = 64


@dataclass(frozen=True)
class Request:
    """The flags; None where not given. ``stages``: ranks of one stage each when there is no profile."""

    path: Path | None = None
    micro_batches: int | None = None
    schedule: str | None = None
    virtual_stages: int | None = None
    micro_batch_size: int | None = None
    batch: int | None = None
    stages: int | None = None
    schedule_csv: Path | None = None


@dataclass(frozen=True)
class Step:
    """A step, simulated or recorded, and what its readers need to know.

    ``unit_times``: there was no profile, t_f = t_b = 1 (I and W half of it each) and messages take no time.
    ``name``: of the schedule, or of the user's own file. ``first_micro_batch``: the number under which the first one is
    shown; 1 where a user's own file counts from 1.
    ``optimizer_s`` and ``overhead_s`` follow the timeline; ``rank_optimizer_s`` is the optimizer of each rank, which
    begins when its own actions have ended, and after ``rank_reduction_s`` where replicas reduce gradients then: part of
    ``optimizer_s`` too. ``recorded``: the same step as it really ran, where that is known; of that one ``is_recorded``,
    and all that follows its timeline is ``optimizer_s``.
    """

    name: str
    timeline: Timeline
    unit_times: bool
    micro_batch_size: int | None = None
    first_micro_batch: int = 0
    optimizer_s: float = 0.0
    rank_reduction_s: tuple[float, ...] = ()
    rank_optimizer_s: tuple[float, ...] = ()
    overhead_s: float = 0.0
    notes: tuple[str, ...] = ()
    recorded: "Step | None" = None
    is_recorded: bool = False

    @property
    def schedule(self) -> Schedule:
        """The schedule that was run."""
        return self.timeline.schedule

    @property
    def each(self) -> tuple["Step", ...]:
        """The step, and the real one where it is known."""
        return (self, self.recorded) if self.recorded else (self,)

    @property
    def source(self) -> str:
        """The origin of its times: measured or predicted."""
        return "measured" if self.is_recorded else "predicted"

    @property
    def lateness(self) -> tuple[float, float]:
        """The distance of an action's real start from the predicted one, as a share of the predicted step: the median
        of all actions, and the most. Only of a step with a ``recorded`` one."""
        assert self.recorded is not None
        off = np.abs(self.recorded.timeline.starts - self.timeline.starts) / self.step_time_s
        return float(np.median(off)), float(off.max())

    @property
    def step_time_s(self) -> float:
        """The whole step: the timeline, the optimizer, the runtime's overhead."""
        return self.timeline.makespan + self.optimizer_s + self.overhead_s

    @cached_property
    def critical_path(self) -> list[int]:
        """The chain of actions that ends last; found once, because it is drawn, told and written. None is known of a
        recorded step: what an action waited for was not noted."""
        return [] if self.is_recorded else self.timeline.critical_path()


def simulate_step(request: Request) -> Step:
    """Simulate what the flags ask for; raise UsageError or InputError in one line, or one per violation."""
    request = replace(request, schedule=schedule_named(request.schedule) or request.schedule)
    if request.schedule_csv is not None:
        return simulate_own(request, request.schedule_csv)
    source = request.path
    if source is None:
        return simulate_units(request)
    report, profiles = read_source(source)
    ranks = profiles[0].ranks
    if request.stages not in (None, ranks):
        raise UsageError(f"--stages {request.stages}: {source} has {ranks} ranks; leave --stages out")
    request, candidate = choose(request, report)
    own = profile_of(profiles, candidate.virtual_stages, candidate.recompute) if candidate else None
    profile = recut(own, candidate.split) if own and candidate else of_cut(profiles, request, source)
    schedule = build(replace(request, virtual_stages=profile.virtual_stages), ranks)
    size, notes = settle_size(request, (report or profile).workload.batch, candidate, schedule.micro_batches)
    return with_recorded(timed(source, profile, schedule, size, notes), report)


# --- what is asked for --------------------------------------------------------------------------------------------


def read_source(path: Path) -> tuple[Report | None, tuple[Profile, ...]]:
    """Read a report with its profiles, or a profile; raise InputError with path and field."""
    document = read_json(path)
    if isinstance(document, dict) and document.get("kind") in (REPORT, PREDICTION):
        report = read_report(path)
        return report, (report.profile, *report.virtual_profiles)
    return None, (read_profile(path),)


def choose(request: Request, report: Report | None) -> tuple[Request, CandidateReport | None]:
    """Fill in m, v and the schedule from the report's candidate that fits the flags, without -m its sweet spot.

    Returns the candidate too if the filled-in request is that candidate.
    """
    wanted = {name: getattr(request, name) for name in ("micro_batches", "schedule", "virtual_stages")}
    candidate = None
    if report is not None and request.micro_batches is None:
        if report.sweet_spot is None:
            raise UsageError(f"{request.path} has no sweet spot; give -m")
        candidate = report.candidates[report.sweet_spot.candidate]
    elif report is not None:
        fits = [c for c in report.candidates if all(v in (None, getattr(c, k)) for k, v in wanted.items())]
        candidate = fits[0] if fits else None
    elif request.micro_batches is None:
        raise UsageError("give -m, the number of micro-batches (only a report has a sweet spot to take it from)")
    if candidate is None:
        return request, None
    if wanted["schedule"] not in (None, candidate.schedule):  # another schedule may have another v
        return replace(request, micro_batches=candidate.micro_batches), None
    filled = {name: value if value is not None else getattr(candidate, name) for name, value in wanted.items()}
    same = all(getattr(candidate, name) == value for name, value in filled.items())
    return replace(request, **filled), candidate if same else None


def of_cut(profiles: tuple[Profile, ...], request: Request, source: Path) -> Profile:
    """Return the profile of as many stages per rank as the flags, or the schedule by its nature, ask for."""
    by_nature = SCHEDULES[request.schedule].stages_per_rank if request.schedule in SCHEDULES else None
    wanted = by_nature if request.virtual_stages is None else request.virtual_stages
    for profile in profiles if wanted or request.schedule is None else profiles[::-1]:
        if wanted in (None, profile.virtual_stages):
            return profile
    cuts = " or ".join(f"{len(profile.stages)} stages on {profile.ranks} ranks" for profile in profiles)
    raise UsageError(f"{wanted} stages per rank: {source} has {cuts}; give a profile of that cut")


def build(request: Request, ranks: int) -> Schedule:
    """Build the schedule; without a name 1F1B, GPipe where m < p; raise UsageError with the nearest m that runs."""
    count, name = request.micro_batches, request.schedule
    if count is None:
        raise UsageError("give -m, the number of micro-batches")
    virtual_stages = request.virtual_stages
    name = name or runnable(default_schedule(virtual_stages or 1), ranks, count)
    if virtual_stages is None:
        virtual_stages = (SCHEDULES[name].stages_per_rank if name in SCHEDULES else 1) or 2
    reason = why_illegal(name, ranks, virtual_stages, count)
    if reason:
        nearest = nearest_legal_m(name, ranks, virtual_stages, count)
        raise UsageError(reason + (f"; the nearest m it runs is {nearest}" if nearest else ""))
    if 2 * count * ranks * virtual_stages > MOST_ACTIONS:
        raise UsageError(
            f"-m {count} on {ranks} ranks is more than {MOST_ACTIONS:,} actions, too many to draw; "
            "autotune predict gives the step time"
        )
    return build_schedule(name, ranks, count, virtual_stages)


def settle_size(
    request: Request, known_batch: int | None, candidate: CandidateReport | None, micro_batches: int
) -> tuple[int, tuple[str, ...]]:
    """Return b, the sequences of one micro-batch, and what was assumed for it; raise UsageError where flags
    disagree."""
    batch = request.batch or known_batch or DEFAULT_BATCH
    size = request.micro_batch_size
    for name, value in (("--batch", request.batch), ("--micro-batch-size", size)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1 (given: {value})")
    if size and request.batch and size != -(-request.batch // micro_batches):
        raise UsageError(
            f"--batch {request.batch} does not make m = {micro_batches} micro-batches of {size}; leave one out"
        )
    if size is None and candidate and request.batch is None:
        return candidate.micro_batch_size, ()
    if size is None and micro_batches > batch:
        raise UsageError(
            f"m = {micro_batches} is more than the batch of {batch} sequences; lower -m, or give --batch or "
            "--micro-batch-size"
        )
    assumed = size is None and not (request.batch or known_batch)
    return size or -(-batch // micro_batches), (f"no batch is given: taken as {DEFAULT_BATCH}",) if assumed else ()


# --- the step -----------------------------------------------------------------------------------------------------


def timed(source: Path, profile: Profile, schedule: Schedule, size: int, notes: tuple[str, ...]) -> Step:
    """Return the step with the profile's durations."""
    timeline = simulate(schedule, stage_costs(profile, size, schedule))
    if timeline.makespan <= 0:
        raise InputError(f"{source}: every time_s is zero, so there is nothing to draw; give t_f and t_bw in seconds")
    if not profile.links and profile.ranks > 1:
        notes += (f"{source} gives no links: messages take no time",)
    is_split = WEIGHT_GRADIENT in timeline.graph.kind
    if is_split and any(row.t_b is None for stage in profile.stages for row in stage.time_s):
        notes += (f"{source} gives t_bw only: t_b and t_w are taken as half of it each",)
    after = after_actions(profile, schedule)
    return Step(
        schedule.name,
        timeline,
        unit_times=False,
        micro_batch_size=size,
        optimizer_s=tail_seconds(timeline.rank_ends, after.seconds),
        rank_reduction_s=tuple(after.reduction),
        rank_optimizer_s=tuple(after.optimizer),
        overhead_s=profile.step_overhead_s,
        notes=notes,
    )


def with_recorded(step: Step, report: Report | None) -> Step:
    """Return the step with the real one beside it, where the report holds a recording of the same candidate."""
    found = report.recorded_step if report else None
    if report is None or found is None or not is_of(step, report.candidates[found.candidate]):
        return step
    starts, ends = (np.array([moment for row in rows for moment in row]) for rows in (found.starts_s, found.ends_s))
    if not len(starts) == len(ends) == len(step.timeline.starts):
        return replace(step, notes=(*step.notes, "the report's recorded_step has not one time per action; left out"))
    timeline = Timeline(step.timeline.graph, starts, ends)
    rest = max(0.0, found.step_time_s - timeline.makespan)
    real = replace(step, timeline=timeline, optimizer_s=rest, overhead_s=0.0, is_recorded=True, notes=())
    return replace(step, recorded=real)


def is_of(step: Step, row: CandidateReport) -> bool:
    """Return whether it is a step of this candidate."""
    schedule = step.schedule
    mine = (schedule.name, schedule.micro_batches, schedule.virtual_stages, step.micro_batch_size)
    return mine == (row.schedule, row.micro_batches, row.virtual_stages, row.micro_batch_size)


def unit_costs(stages: int) -> Costs:
    """Return costs in which t_f = t_b = 1, the two halves of a split backward take half each, and messages take no
    time."""
    ones, halves, nothing = [1.0] * stages, [0.5] * stages, [0.0] * (stages - 1)
    return Costs(ones, ones, halves, halves, nothing, nothing)


def refuse_sizes(request: Request) -> None:
    """Raise UsageError for flags that only a profile gives a meaning."""
    for name, value in (("--batch", request.batch), ("--micro-batch-size", request.micro_batch_size)):
        if value is not None:
            raise UsageError(f"{name} needs a PROFILE: without one every action takes one unit of time")


def simulate_units(request: Request) -> Step:
    """Return a schedule of torch's on ``--stages`` ranks in unit times."""
    if request.stages is None:
        raise UsageError("give a PROFILE or REPORT; or --stages or --schedule-csv, for a drawing in unit times")
    refuse_sizes(request)
    schedule = build(request, request.stages)
    return Step(schedule.name, simulate(schedule, unit_costs(schedule.stages)), unit_times=True)


def simulate_own(request: Request, path: Path) -> Step:
    """Return a user's own schedule, with the profile's durations or in unit times; raise InputError if it cannot
    finish."""
    for name in ("micro_batches", "schedule", "virtual_stages", "stages"):
        if getattr(request, name) is not None:
            flag = "-m" if name == "micro_batches" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} and --schedule-csv disagree: the file itself is the schedule; leave {flag} out")
    own = read_schedule(path)
    try:
        if request.path is None:
            refuse_sizes(request)
            step = Step(path.name, simulate(own.schedule, unit_costs(own.schedule.stages)), unit_times=True)
        else:
            report, profiles = read_source(request.path)
            profile = of_size(profiles, own.schedule, path, request.path)
            known = (report or profile).workload.batch
            size, notes = settle_size(request, known, None, own.schedule.micro_batches)
            step = timed(request.path, profile, own.schedule, size, notes)
    except ScheduleError as error:
        raise InputError(f"{path} cannot finish: {error}") from None
    return replace(step, name=path.name, first_micro_batch=own.first_micro_batch, notes=own.notes + step.notes)


def of_size(profiles: tuple[Profile, ...], schedule: Schedule, path: Path, source: Path) -> Profile:
    """Return the profile of as many ranks and stages as the schedule has; raise UsageError if there is none."""
    for profile in profiles:
        if (profile.ranks, len(profile.stages)) == (schedule.ranks, schedule.stages):
            return profile
    cuts = " or ".join(f"{len(profile.stages)} stages on {profile.ranks} ranks" for profile in profiles)
    raise UsageError(f"{path} runs {schedule.stages} stage(s) on {schedule.ranks} rank(s), {source} has {cuts}")
