"""The main job: Config -> Profile -> Predictions -> Measurements -> Report. Silent; tells ``Events`` what it does."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from math import log
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from autotune import __version__
from autotune.config import Config
from autotune.errors import DeviceError, InputError, Interrupted, MemoryLimitError, UsageError
from autotune.job import Events, Job, obtain_profile, prepare_job, writable
from autotune.pipeline.commands import Prepare
from autotune.pipeline.measure import measure_candidate
from autotune.pipeline.outcome import Failure, Measurement
from autotune.pipeline.ranks import load_torch
from autotune.predict.predict import predict
from autotune.predict.record import Candidate, Prediction
from autotune.profile.cache import fingerprint
from autotune.profile.record import Profile
from autotune.profile.replay import waits_for
from autotune.records import remove_leftovers, write_record, write_text
from autotune.report.fingerprint import fingerprint as report_fingerprint
from autotune.report.record import CandidateReport, Report, SearchReport, candidate_report
from autotune.report.soundness import checked
from autotune.report.units import show_bytes
from autotune.report.verdict import drift, pace, pareto_points, sweet_spot
from autotune.search.choose import why_not
from autotune.search.lock import locked
from autotune.search.prospects import TIE, Goal
from autotune.search.rehearsal import exhaustive_seconds
from autotune.search.sampler import check_sampler
from autotune.search.search import Limits, Search
from autotune.search.study import Study, load_storage

UNSTEADY = 0.05  # relative standard deviation between rounds of profiling that is worth a warning
LEAN_TOLERANCE = 0.05  # of throughput, where memory is the objective and no tolerance was given


def exclusions(job: Job, profiles: list[Profile], predictions: list[Prediction]) -> list[str | None]:
    """Why each candidate is not tried, or None."""
    least = job.config.min_micro_batch_size
    batch_statistics = any(stage.batch_statistics for profile in profiles for stage in profile.stages)
    reasons: list[str | None] = []
    for candidate, prediction in zip(job.candidates, predictions, strict=True):
        if prediction.fits is False and not job.config.explore_limit:
            reasons.append("does not fit")
        elif batch_statistics and candidate.micro_batch_size < least:
            reasons.append(f"batch statistics need {least} samples")
        else:
            reasons.append(None)
    if batch_statistics and any(reason and reason.startswith("batch") for reason in reasons):
        job.warn(
            f"the model normalises over the batch (BatchNorm): micro-batches of fewer than {least} samples are not"
            " tried; --min-micro-batch-size changes that"
        )
    return reasons


@dataclass
class Findings:
    """Everything a report is made of."""

    job: Job
    profiles: list[Profile]
    is_earlier_profile: bool
    predictions: list[Prediction]
    excluded: list[str | None]

    def report(self, search: Search | None, status: str, stopped_because: str = "") -> Report:
        """The report as things stand."""
        winner = search.pick() if search else None
        spot = sweet_spot(search, winner, self.job.memory_limit) if search and winner is not None else None
        rows = [self._candidate(index, search, winner) for index in range(len(self.predictions))]
        candidates, soundness = checked(rows, self.profiles[0], self.job.facts.precision)
        return Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            autotune_version=__version__,
            command=self.job.command,
            status=status,  # type: ignore[arg-type]
            fingerprint=report_fingerprint(self.job.environment, self.job.facts, __version__),
            environment=self.job.environment,
            workload=self.job.facts,
            memory_limit_bytes=self.job.memory_limit,
            warnings=tuple(self.job.warnings),
            profile=self.profiles[0],
            virtual_profiles=tuple(self.profiles[1:]),
            profile_from_earlier_run=self.is_earlier_profile,
            candidates=candidates,
            sweet_spot=spot,
            soundness=soundness,
            search=self._search(search, stopped_because),
        )

    def _search(self, search: Search | None, stopped_because: str) -> SearchReport:
        config = self.job.config
        goal = goal_of(config)
        if search is None:
            return SearchReport(
                sampler=config.sampler,
                trials=0,
                real_steps=0,
                profiling_s=self.job.profiling_s,
                wall_s=0.0,
                stopped_because=stopped_because or "still running",
                objective=goal.objective,
                tolerance=goal.tolerance,
            )
        return SearchReport(
            sampler=config.sampler,
            trials=search.trials,
            earlier_trials=search.earlier_trials,
            real_steps=search.real_steps,
            profiling_s=self.job.profiling_s,
            steps_s=self.job.ranks.busy_s - self.job.profiling_s,
            device_s=self.job.ranks.busy_s * self.job.ranks.ranks,
            exhaustive_device_s=self._exhaustive_s(search) * self.job.ranks.ranks,
            wall_s=search.elapsed_s,
            stopped_because=stopped_because or search.stopped_because or "still running",
            objective=goal.objective,
            tolerance=goal.tolerance,
            confidence=search.confidence() if search.pick() is not None else None,
            final=search.final or None,
            drift=drift(search),
            pareto_front=pareto_points(search),
        )

    def _exhaustive_s(self, search: Search) -> float:
        """Seconds that ranks would have worked to confirm every candidate that fits."""
        known = search.visits.estimates()
        steps = {index: search.revisions[index].step_time_s for index in search.allowed}
        steps |= {index: known[index].step_time_s for index in search.allowed if index in known}
        return self.job.profiling_s + exhaustive_seconds(list(steps.values()))

    def _candidate(self, index: int, search: Search | None, winner: int | None) -> CandidateReport:
        outcome = search.outcomes.get(index) if search else None
        excluded = self.excluded[index] or (search.ruled_out.get(index) if search else None)
        row = candidate_report(self.job.candidates[index], self.predictions[index], outcome, excluded)
        if search is None:
            return row
        found = {"last_prediction": search.revisions.get(index), "pace": pace(search, index, row.measurement)}
        row = row.model_copy(update=found)
        if winner is None or index == winner or row.measurement is None:
            return row
        loses_to = why_not(index, winner, self.predictions, self.job.candidates)
        return row.model_copy(update={"loses_to": loses_to})


def goal_of(config: Config) -> Goal:
    """What the search is for."""
    usual = LEAN_TOLERANCE if config.objective == "memory" else TIE
    return Goal(config.objective, config.tolerance or usual)


def make_search(job: Job, found: Findings, save: Callable[[Search], None]) -> Search:
    """The search over the candidates that are not excluded, on this job's ranks."""

    def measure(
        candidate: Candidate, prediction: Prediction, steps: int, keep_going: Callable[[int, float], bool]
    ) -> Measurement | Failure:
        waits = waits_for(found.profiles[0], candidate.micro_batch_size) if job.recorded else ()
        plan = Prepare(**candidate.model_dump(), waits=waits)
        seq_len, expected = job.facts.seq_len, prediction.step_time_s
        return measure_candidate(job.ranks, job.workload, plan, expected, steps, keep_going, seq_len)

    study = Study(job.config.state_dir, study_name(job), job.candidates, job.config.fresh, identity(job))
    say_what_is_new(job, study)
    return Search(
        candidates=job.candidates,
        predictions=found.predictions,
        allowed=[index for index, reason in enumerate(found.excluded) if reason is None],
        study=study,
        measure=measure,
        limits=Limits(job.config.budget, job.config.trials, job.config.exhaustive),
        on_progress=lambda text: job.events.progress(text, None),
        on_outcome=save,
        on_warning=job.warn,
        goal=goal_of(job.config),
        sampler=job.config.sampler,
        memory_limit=job.memory_limit,
        unevenness=max(profile.drift for profile in found.profiles) / 2,  # profiling shows it by single passes
        seed=job.config.seed,
    )


def identity(job: Job) -> dict[str, dict[str, Any]]:
    """What figures depend on; two runs that agree in all of it share a study."""
    return {
        "workload": job.facts.model_dump(mode="json"),
        "environment": job.environment.model_dump(mode="json"),
        "search": {
            "micro_batch_size": job.config.micro_batch_size,
            "schedules": sorted({candidate.schedule for candidate in job.candidates}),
            "recorded_profile": fingerprint(job.workload, job.recorded.environment, job.recorded.model_dump_json())
            if job.recorded
            else None,
        },
    }


def study_name(job: Job) -> str:
    """Names the workload in words, and everything else that makes figures comparable in a fingerprint."""
    work = job.facts
    mark = fingerprint(job.workload, job.environment, sorted(identity(job)["search"].items(), key=str))
    return f"{work.layers} layers, {work.stages} stages, batch {work.batch}, {job.environment.device} [{mark}]"


def say_what_is_new(job: Job, study: Study) -> None:
    """Where earlier studies are not continued, says why: a warning if they are of the same workload."""
    parts = study.differs_from_earlier
    if not parts:
        return
    words = ", ".join(text for texts in parts.values() for text in texts)
    where = job.config.state_dir / "study.db"
    if "workload" in parts:
        job.events.header([f"study     a new one; the most similar in {where} differs: {words}"])
    else:
        job.warn(f"an earlier study of this workload in {where} is not continued, since {words}")


def tune(config: Config, events: Events, command: str | None = None) -> Report:
    """Runs the whole job and returns the report that is also at ``config.out``, the profile and the page beside it.

    ``command``: what the user typed, for the report.

    Raises MemoryLimitError when nothing fits, DeviceError when no candidate ran, Interrupted after Ctrl-C; whatever
    was measured by then is on disk.
    """
    writable(config.out)
    check_sampler(config.sampler)
    load_torch()  # takes seconds, which the controller has its own libraries to load in
    load_storage()
    import_module("autotune.report.page.page")
    job = prepare_job(config, events)
    job.command = command
    with locked(lock_path(job)):
        for path in (config.out, page_file(config.out)):
            remove_leftovers(path)
        return profile_and_search(job)


def lock_path(job: Job) -> Path:
    """The file that one run at a time holds while it works on the study."""
    return job.config.state_dir / f"{study_name(job)[-17:-1]}.lock"


def profile_and_search(job: Job) -> Report:
    """``tune`` from the profile on."""
    try:
        pairs = [obtain_profile(job, virtual_stages) for virtual_stages in job.cuts]
        job.profiling_s = job.ranks.busy_s
        profiles = [profile for profile, _ in pairs]
        write_profiles(job, profiles)
        say_if_unsteady(job, profiles)
        of_cut = dict(zip(job.cuts, profiles, strict=True))
        predictions = [predict(of_cut[c.virtual_stages], c, job.memory_limit) for c in job.candidates]
        is_earlier = all(earlier for _, earlier in pairs)
        found = Findings(job, profiles, is_earlier, predictions, exclusions(job, profiles, predictions))
        return search_and_report(job, found)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the profile was complete; nothing was written") from None
    finally:
        job.ranks.stop()


def say_if_unsteady(job: Job, profiles: list[Profile]) -> None:
    """Warns where the rounds of profiling differed by more than noise."""
    drift = max(profile.drift for profile in profiles)
    if drift > UNSTEADY:
        job.warn(
            f"the machine drifted while it was profiled: the same passes took {drift:.0%} more or less from round to"
            " round, so predictions are less sure; --fresh profiles again"
        )


def write_profiles(job: Job, profiles: list[Profile]) -> None:
    """Writes profile.json beside the report, and one more for every further number of stages per rank
    (profile-v2.json); in a replay profile-replay.json, for the recording may itself be called profile.json."""
    for number, profile in enumerate(profiles):
        name = f"profile-v{profile.virtual_stages}" if number else "profile"
        name += "-replay" if job.recorded is not None else ""
        write_record(job.config.out.parent / f"{name}.json", profile)


def search_and_report(job: Job, found: Findings) -> Report:
    """The second half of ``tune``: from predictions to the report on disk."""
    out = job.config.out
    if all(reason == "does not fit" for reason in found.excluded):
        publish(job, found.report(None, "infeasible", "no candidate fits in memory"))
        least = min(max(prediction.peak_memory_bytes or (0,)) for prediction in found.predictions)
        raise MemoryLimitError(
            f"no candidate fits in {show_bytes(job.memory_limit or 0)} per rank: the leanest needs {show_bytes(least)};"
            f" use more --stages, more --micro-batches or a higher --memory-limit (predictions are in {out})"
        )
    if all(found.excluded):
        raise UsageError("every candidate is excluded; lower --min-micro-batch-size or try fewer --micro-batches")

    def save(search: Search) -> None:
        report = found.report(search, "partial")
        write_record(out, report)
        job.events.outcome(report)

    search = make_search(job, found, save)
    try:
        search.run()
    except DeviceError as error:
        publish(job, found.report(search, "partial", str(error)))
        raise DeviceError(f"{error} (what was measured is in {out})") from None
    except StorageInternalError as error:
        publish(job, found.report(search, "partial", "the study could not be written"))
        raise InputError(
            f"cannot write the study in {job.config.state_dir}: {error.__cause__ or error}; make room there or give"
            f" --state-dir (what was measured is in {out})"
        ) from None
    except KeyboardInterrupt:
        publish(job, found.report(search, "partial", "interrupted by the user"))
        raise Interrupted(f"interrupted; what was measured is in {out}, and the next run goes on from there") from None
    compare_with_profile(job, found, search)
    report = found.report(search, "complete" if search.measured else "partial")
    say_what_is_doubtful(job, report)
    report = report.model_copy(update={"warnings": tuple(job.warnings)})
    publish(job, report)
    if search.measured and search.pick() is None:
        raise MemoryLimitError(
            f"every candidate that ran needs more than {show_bytes(job.memory_limit or 0)} per rank; use more --stages,"
            f" more --micro-batches or a higher --memory-limit (what was measured is in {out})"
        )
    if not search.measured:
        raise nothing_ran(search)
    return report


def nothing_ran(search: Search) -> DeviceError | MemoryLimitError:
    """What ends a run of which nothing can be said but how it failed."""
    failures = [outcome for outcome in search.outcomes.values() if isinstance(outcome, Failure)]
    if not failures:
        return DeviceError("nothing ran")
    if all(failure.kind == "out_of_memory" for failure in failures):
        return MemoryLimitError(
            f"every candidate ran out of memory; the first: {failures[0].message}; use more --stages, more"
            " --micro-batches or a higher --memory-limit"
        )
    earlier = "" if search.trials else " (in an earlier run; --fresh tries again)"
    return DeviceError(f"every candidate that was tried failed; the first: {failures[0].message}{earlier}")


def page_file(out: Path) -> Path:
    """Where the page of a report lies: report.html beside report.json."""
    return out.with_suffix(".html") if out.suffix != ".html" else out.with_name(f"{out.name}.html")


def publish(job: Job, report: Report) -> None:
    """Writes the report for good, and the page beside it; a page that cannot be written loses nothing."""
    from autotune.report.page.page import page

    out = job.config.out
    write_record(out, report)
    try:
        write_text(page_file(out), page(report))
    except InputError as error:
        job.events.warn(f"{error} (autotune show {out} --html FILE makes the page again)")


def compare_with_profile(job: Job, found: Findings, search: Search) -> None:
    """Warns where all real steps are so far from the predicted ones that the machine must have changed in between."""
    steady = drift(search)
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
    """Only measures the stages and links, for ``autotune profile``."""
    writable(config.out)
    if config.device == "replay":
        raise UsageError("--device replay has a profile already; autotune run replays it")
    job = prepare_job(config, events)
    try:
        profile, _ = obtain_profile(job, job.cuts[0])
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the profile was complete; nothing was written") from None
    finally:
        job.ranks.stop()
    write_record(config.out, profile)
    return profile
