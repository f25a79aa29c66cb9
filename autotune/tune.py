"""The main job: Config -> Profile -> Predictions -> Measurements -> Report. Silent; tells ``Events`` what it does."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from math import log
from pathlib import Path

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from autotune.backend.protocol import Backend
from autotune.config import Config
from autotune.errors import DeviceError, InputError, Interrupted, MemoryLimitError, UsageError
from autotune.events import Events, Forwarded
from autotune.identity import StudyIdentity
from autotune.predict.schedules import build_schedule
from autotune.records.base import remove_leftovers, write_record, write_text
from autotune.records.exclusion import ExclusionReason
from autotune.records.failure import Failure
from autotune.records.job.recompute import show_modes
from autotune.records.profile import Profile
from autotune.records.report import RecordedStep, Report
from autotune.records.verdict import Stop, StopReason
from autotune.report.units import show_bytes
from autotune.search.goal import Limits
from autotune.search.runner import Runner
from autotune.search.state import SearchState
from autotune.search.study.lock import locked
from autotune.search.study.sampler import check_sampler
from autotune.search.study.shared import SharedStudy, check_storage
from autotune.search.study.study import Study, load_storage
from autotune.search.study.trouble import check_study
from autotune.tuning.conclude import drift, so_far
from autotune.tuning.findings import Findings, foresee, goal_of, profile_of
from autotune.tuning.job import Job, prepared, writable
from autotune.tuning.recorded import recorded_step

UNSTEADY, FAR_APART = 0.05, 1.25  # between rounds of profiling: standard deviation of passes, ratio of pipelined steps
RECORDED_STEPS = 3


@dataclass(frozen=True)
class Polling(Forwarded):
    """Events of a search, at each of which the backend hears the workers of other hosts."""

    backend: Backend

    def progress(self, text: str, done: float | None = None) -> None:
        """Let the backend poll, and hand it on."""
        self.backend.poll()
        self.to.progress(text, done)

    def step(self, candidate: str, number: int, seconds: float) -> None:
        """Let the backend poll, and hand it on."""
        self.backend.poll()
        self.to.step(candidate, number, seconds)


def make_search(job: Job, found: Findings, save: Callable[[Runner], None]) -> Runner:
    """Return the search over the candidates that are not excluded, on this job's backend."""
    study = open_study(job)
    say_what_is_new(job, study)
    excluded = {c: reason for c, reason in zip(job.candidates, found.excluded, strict=True) if reason is not None}
    predictions = dict(zip(job.candidates, found.predictions, strict=True))
    return Runner(
        state=SearchState(predictions, excluded, goal_of(job.config), job.backend.memory_limit, found.present),
        study=study,
        measure=job.backend.measure,
        limits=Limits(job.config.budget, job.config.trials, job.config.exhaustive),
        events=Polling(job.events, job.backend),
        on_outcome=save,
        sampler=job.config.sampler,
        seed=job.config.seed,
        first=found.learner.first if found.learner else None,
        learn=found.learner.believed if found.learner else None,
    )


def open_study(job: Job) -> Study:
    """Return the study in the state directory, or in the database that several controllers share."""
    config, identity = job.config, identity_of(job)
    name = identity.name
    if config.storage is None:
        return Study(config.state_dir, name, job.candidates, config.fresh, identity.parts)
    address = config.storage.get_secret_value()
    study = SharedStudy(address, config.heartbeat, name, job.candidates, config.fresh, identity.parts)
    job.events.header([f"study     {name!r} in {study.where}; this is its controller {study.controller}"])
    return study


def identity_of(job: Job) -> StudyIdentity:
    """Return what this run's figures depend on: as far as hosts of one kind may share them, where the study is in a
    database."""
    here = job.backend.environment
    return StudyIdentity.of(
        job.backend.workload,
        job.backend.facts,
        here.nameless if job.config.storage else here,
        job.candidates,
        job.config.micro_batch_size,
        job.backend.depends_on,
    )


def say_what_is_new(job: Job, study: Study) -> None:
    """Say why earlier studies are not continued, where they are not: a warning if they are of the same workload."""
    parts = study.differs_from_earlier
    if not parts:
        return
    words = ", ".join(text for texts in parts.values() for text in texts)
    if "workload" in parts:
        job.events.header([f"study     a new one; the most similar in {study.where} differs: {words}"])
    else:
        job.warn(f"an earlier study of this workload in {study.where} is not continued, since {words}")


def tune(config: Config, events: Events, command: str | None = None) -> Report:
    """Runs the whole job and returns the report that is also at ``config.out``, the profile and the page beside it.

    ``command``: what the user typed, for the report.

    Raises MemoryLimitError when nothing fits, DeviceError when no candidate ran, Interrupted after Ctrl-C; whatever
    was measured by then is on disk.
    """
    writable(config.out)
    check_sampler(config.sampler)
    load_storage()
    if config.storage:
        check_storage(config.storage.get_secret_value())
    else:
        check_study(config.state_dir)
    import_module("autotune.report.page.page")
    with prepared(config, events) as job:
        job.command = command
        with nullcontext() if config.storage else locked(lock_path(job)):
            for path in (config.out, page_file(config.out)):
                remove_leftovers(path)
            return profile_and_search(job)


def lock_path(job: Job) -> Path:
    """Return the file that one run at a time holds while it works on a study in the state directory."""
    return job.config.state_dir / f"{identity_of(job).digest}.lock"


def profile_and_search(job: Job) -> Report:
    """Profile and search: ``tune`` from the profile on."""
    try:
        found = foresee(job)
        job.profiling_s = job.backend.busy_s
        if found.learner is None:
            write_profiles(job, found.profiles)
            say_if_unsteady(job, found.profiles)
        return search_and_report(job, found)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the profile was complete; nothing was written") from None
    finally:
        job.backend.close()


def say_if_unsteady(job: Job, profiles: list[Profile]) -> None:
    """Warns where the rounds of profiling differed by more than noise."""
    drift = max(profile.drift for profile in profiles)
    apart = max((run.apart for profile in profiles for run in profile.calibrations), default=1.0)
    if drift > UNSTEADY or apart > FAR_APART:
        words = f"the same passes took {drift:.0%} more or less from round to round"
        if drift <= UNSTEADY:
            words = f"the same pipelined step took {apart:.1f} times as long in one round as in another"
        job.warn(
            f"the machine drifted while it was profiled: {words}, so predictions are less sure; --fresh profiles again"
        )


def write_profiles(job: Job, profiles: list[Profile]) -> None:
    """Writes profile.json beside the report, and one more for every further number of stages per rank
    (profile-v2.json) or way to recompute (profile-v1-full.json); in a replay profile-replay.json, for the recording may
    itself be called profile.json."""
    for number, profile in enumerate(profiles):
        mode = f"-{show_modes(profile.recompute)}" if profile.recompute else ""
        name = f"profile-v{profile.virtual_stages}{mode}" if number else "profile"
        write_record(job.config.out.parent / f"{name}{job.backend.suffix}.json", profile)


def leanest(found: Findings) -> str:
    """Return what the candidate that takes least of its fullest device takes of it, and how much of that is not
    torch's."""
    needs = [prediction.device_memory_bytes or (0,) for prediction in found.predictions]
    least = min(needs, key=max)
    rank = least.index(max(least))
    outside = found.profiles[0].outside_of(rank) if any(least) else 0
    held = f", {show_bytes(outside)} of them held outside of torch" if outside else ""
    return f"needs {show_bytes(max(least))}{held} on rank {rank}"


def search_and_report(job: Job, found: Findings) -> Report:
    """Search and report: the second half of ``tune``, from predictions to the report on disk."""
    out, limit = job.config.out, show_bytes(job.backend.memory_limit or 0)
    if all(one and one.reason is ExclusionReason.MEMORY for one in found.excluded):
        publish(job, found.report(None, "infeasible", Stop(reason=StopReason.INFEASIBLE)))
        raise MemoryLimitError(
            f"no candidate fits in {limit} per rank: the leanest {leanest(found)}; use more"
            f" --stages, more --micro-batches or a higher --memory-limit (predictions are in {out})"
        )
    if all(found.excluded):
        raise UsageError("every candidate is excluded; lower --min-micro-batch-size or try fewer --micro-batches")

    def save(search: Runner) -> None:
        report = found.report(search, "partial")
        write_record(out, report)
        job.events.known(so_far(search))

    search = make_search(job, found, save)
    recorded = run_search(found, search)
    compare_with_profile(job, found, search)
    report = found.report(search, "complete" if search.state.measured else "partial")
    if found.learner is not None and search.state.measured:
        write_profiles(job, found.profiles)
    say_what_is_doubtful(job, report)
    report = report.model_copy(update={"warnings": tuple(job.warnings), "recorded_step": recorded})
    publish(job, report)
    if search.state.measured and search.pick() is None:
        raise MemoryLimitError(
            f"every candidate that ran needs more than {limit} per rank; use more --stages,"
            f" more --micro-batches or a higher --memory-limit (what was measured is in {out})"
        )
    if not search.state.measured:
        raise nothing_ran(search)
    return report


def run_search(found: Findings, search: Runner) -> RecordedStep | None:
    """Runs the search, and records its pick where asked for; where something stops it, what was measured is written."""
    job, out = found.job, found.job.config.out
    try:
        search.run()
        return record_pick(found, search)
    except DeviceError as error:
        publish(job, found.report(search, "partial", Stop(reason=StopReason.DEVICES, message=str(error))))
        raise DeviceError(f"{error} (what was measured is in {out})") from None
    except (StorageInternalError, SQLAlchemyError, KeyError) as error:
        trouble = search.study.trouble(error)
        if trouble is None:
            raise
        publish(job, found.report(search, "partial", Stop(reason=StopReason.STORAGE)))
        raise InputError(f"{trouble} (what was measured is in {out})") from None
    except KeyboardInterrupt:
        publish(job, found.report(search, "partial", Stop(reason=StopReason.INTERRUPTED)))
        raise Interrupted(f"interrupted; what was measured is in {out}, and the next run goes on from there") from None
    finally:
        search.study.close()


def record_pick(found: Findings, search: Runner) -> RecordedStep | None:
    """Record a few steps of the pick, action by action, where the user asks for them; a rank that fails is a warning
    then."""
    job, pick = found.job, search.pick()
    if not job.config.record_timeline or pick is None:
        return None
    expected_s = search.state.predictions[pick].step_time_s
    job.events.progress(f"recording {pick.label}")
    steps = job.backend.record(pick, expected_s, RECORDED_STEPS)
    if steps is None:
        return None
    if isinstance(steps, Failure):
        job.warn(f"the steps of {pick.label} could not be recorded: {steps.message}")
        return None
    schedule = build_schedule(pick.schedule, job.backend.ranks, pick.micro_batches, pick.virtual_stages)
    return recorded_step(job.candidates.index(pick), schedule, steps)


def nothing_ran(search: Runner) -> DeviceError | MemoryLimitError:
    """Return the error that ends a run of which nothing can be said but how it failed."""
    failures = [outcome for outcome in search.state.outcomes.values() if isinstance(outcome, Failure)]
    if not failures:
        return DeviceError("nothing ran")
    if all(failure.kind == "out_of_memory" for failure in failures):
        return MemoryLimitError(
            f"every candidate ran out of memory; the first: {failures[0].message}; use more --stages, more"
            " --micro-batches or a higher --memory-limit"
        )
    earlier = "" if search.state.trials else " (in an earlier run; --fresh tries again)"
    return DeviceError(f"every candidate that was tried failed; the first: {failures[0].message}{earlier}")


def page_file(out: Path) -> Path:
    """Return where the page of a report lies: report.html beside report.json."""
    return out.with_suffix(".html") if out.suffix != ".html" else out.with_name(f"{out.name}.html")


def publish(job: Job, report: Report) -> None:
    """Writes the report for good, and the page beside it; a page that cannot be written loses nothing."""
    from autotune.report.page.page import page

    out = job.config.out
    write_record(out, report)
    try:
        write_text(page_file(out), page(report, out))
    except InputError as error:
        job.events.warn(f"{error} (autotune show {out} --html FILE makes the page again)")


def compare_with_profile(job: Job, found: Findings, search: Runner) -> None:
    """Warns where all real steps are so far from the predicted ones that the machine must have changed in between."""
    steady = None if found.learner else drift(search)
    if steady is None or steady.profile_ratio is None:
        return
    allowed = max(3 * prediction.uncertainty.common for prediction in found.predictions)
    if abs(log(steady.profile_ratio)) > allowed:
        job.warn(
            f"real steps took {steady.profile_ratio:.2f} times as long as predicted: the machine ran at another pace"
            " while it was profiled, or the cost model is off here; what was measured holds, and --fresh profiles again"
        )


def say_what_is_doubtful(job: Job, report: Report) -> None:
    """Warns where candidates do not compute the same, or keep what they should let go of."""
    for finding in report.soundness.findings if report.soundness else ():
        job.warn(finding)


def profile_only(config: Config, events: Events) -> Profile:
    """Measure the stages and links only, for ``autotune profile``."""
    writable(config.out)
    if config.device == "replay":
        raise UsageError("--device replay has a profile already; autotune run replays it")
    with prepared(config, events) as job:
        try:
            profile = profile_of(job, job.needs[0]).profile
        except KeyboardInterrupt:
            raise Interrupted("interrupted before the profile was complete; nothing was written") from None
    write_record(config.out, profile)
    return profile
