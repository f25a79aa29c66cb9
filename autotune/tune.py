"""The main job: Config -> Profile -> Predictions -> Measurements -> Report. Silent; tells ``Events`` what it does."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotune import __version__
from autotune.config import Config, Workload
from autotune.errors import DeviceError, InputError, Interrupted, MemoryLimitError, UsageError
from autotune.pipeline.commands import Describe, Prepare, StageFacts
from autotune.pipeline.measure import build, measure_candidate
from autotune.pipeline.outcome import Failure, Measurement
from autotune.pipeline.ranks import RankFailure, Ranks, survey
from autotune.predict.predict import candidates_for, predict
from autotune.predict.record import Candidate, Prediction
from autotune.profile.cache import cached_profile, fingerprint, keep_profile, profile_path
from autotune.profile.measure import measure_profile
from autotune.profile.record import Environment, Profile
from autotune.records import write_record
from autotune.report.record import CandidateReport, Report, SearchReport, SweetSpot, candidate_report
from autotune.report.units import show_bytes
from autotune.search.choose import pick, reason, why_not
from autotune.search.search import Limits, Search
from autotune.search.study import Study

DESCRIBE_TIMEOUT_S = 300.0


def ignore(*_: Any) -> None:
    """The listener of those who do not listen."""


@dataclass
class Events:
    """Who listens: ``header(lines)``, ``warn(text)``, ``progress(text, fraction or None)``, ``outcome(report)``."""

    header: Callable[[list[str]], None] = ignore
    warn: Callable[[str], None] = ignore
    progress: Callable[[str, float | None], None] = ignore
    outcome: Callable[[Report], None] = ignore


@dataclass
class Job:
    """What is settled before anything is measured."""

    config: Config
    environment: Environment
    workload: Workload
    memory_limit: int
    candidates: list[Candidate]
    ranks: Ranks
    events: Events
    warnings: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every micro-batch size that some candidate needs, ascending."""
        return tuple(sorted({candidate.micro_batch_size for candidate in self.candidates}))

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.events.warn(text)


def writable(path: Path) -> None:
    """Raises InputError where ``path`` could not be written at the end of the run."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory; give a file with --out")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no directory {path.parent}; make it or give another --out")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: no permission in {path.parent}; give another --out")


def choose_device(config: Config, environment: Environment) -> Environment:
    """The environment with the device that will be used; raises DeviceError where it is not here."""
    if config.device == "replay":
        raise UsageError("--device replay is not in this version; use --device cpu or cuda")
    if config.device == "cuda" and environment.device != "cuda":
        raise DeviceError("--device cuda: torch sees no GPU here; use --device cpu, or see autotune doctor")
    if config.device == "cpu" and environment.device == "cuda":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return environment.model_copy(update={"device": "cpu", "devices": (), "memory_bytes": memory})
    if environment.device == "cuda" and len(environment.devices) < config.stages:
        raise DeviceError(
            f"{config.stages} stages need {config.stages} GPUs, but only {len(environment.devices)} are visible;"
            f" use --stages {len(environment.devices)}, or --device cpu"
        )
    return environment


def prepare_job(config: Config, events: Events) -> Job:
    """Looks at the machine and settles sizes, candidates and limits; starts no rank yet."""
    events.progress("looking at the devices", None)
    environment = choose_device(config, Environment.model_validate(survey()))
    kind = environment.device or "cpu"
    workload = config.workload(kind)
    sharing = workload.stages if kind == "cpu" else 1
    limit = config.memory_limit or (environment.memory_bytes or 0) // sharing
    naive = () if config.micro_batch_size else (1,)  # always measured: it shows what pipelining buys
    candidates = candidates_for(
        tuple(sorted({*naive, *config.counts()})),
        config.schedule,
        workload.stages,
        workload.batch,
        config.micro_batch_size,
    )
    job = Job(config, environment, workload, limit, candidates, Ranks(workload.stages, kind), events)
    events.header(header(job))
    return job


def header(job: Job) -> list[str]:
    """What will be tried, on what."""
    work, here = job.workload, job.environment
    devices = f"{here.cores} cores ({', '.join(here.devices)})" if here.device == "cpu" else ", ".join(here.devices)
    counts = ", ".join(str(count) for count in sorted({c.micro_batches for c in job.candidates}))
    fixed = f" of {job.config.micro_batch_size}" if job.config.micro_batch_size else ""
    return [
        f"device    {here.device}: {devices}, torch {here.torch_version}, {show_bytes(job.memory_limit)} per rank",
        f"workload  GPT, {work.layers} layers in {work.stages} stages, hidden {work.hidden}, heads {work.heads}, "
        f"sequence {work.seq_len}, vocab {work.vocab}, {work.precision}, {work.optimizer}",
        f"batch     {work.batch} sequences, m in {counts} micro-batches{fixed}, {', '.join(job.config.schedule)}",
    ]


def check_weights(job: Job, static_bytes: list[int]) -> None:
    """Raises MemoryLimitError where weights, gradients and optimizer state alone exceed the limit."""
    stage = max(range(len(static_bytes)), key=lambda index: static_bytes[index])
    if static_bytes[stage] > job.memory_limit:
        raise MemoryLimitError(
            f"stage {stage} needs {static_bytes[stage]} bytes ({show_bytes(static_bytes[stage])}) for weights,"
            f" gradients and optimizer state, over the limit of {job.memory_limit} bytes"
            f" ({show_bytes(job.memory_limit)}); use more --stages, a smaller model or a higher --memory-limit"
        )


def obtain_profile(job: Job) -> tuple[Profile, bool]:
    """The profile kept from an earlier run (True), or a new one measured on live ranks (False)."""
    path = profile_path(job.config.state_dir, job.workload, job.environment)
    kept = None if job.config.fresh else cached_profile(path, job.sizes)
    if kept is not None:
        check_weights(job, [stage.static_bytes for stage in kept.stages])
        return kept, True
    try:
        job.events.progress("starting the ranks", None)
        job.ranks.start()
        answers = job.ranks.ask(Describe(workload=job.workload), DESCRIBE_TIMEOUT_S)
        check_weights(job, [StageFacts.model_validate(answer).static_bytes for answer in answers])
        job.events.progress("building the stages", None)
        facts = build(job.ranks, job.workload)
    except RankFailure as error:
        raise DeviceError(f"the ranks did not start: {error.failure.message}; see autotune doctor") from None
    profile = measure_profile(job.ranks, job.workload, facts, job.sizes, job.environment, job.events.progress)
    keep_profile(path, profile)
    return profile, False


def exclusions(job: Job, profile: Profile, predictions: list[Prediction]) -> list[str | None]:
    """Why each candidate is not tried, or None."""
    least = job.config.min_micro_batch_size
    batch_statistics = any(stage.batch_statistics for stage in profile.stages)
    reasons: list[str | None] = []
    for candidate, prediction in zip(job.candidates, predictions, strict=True):
        if prediction.fits is False:
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
    profile: Profile
    is_earlier_profile: bool
    predictions: list[Prediction]
    excluded: list[str | None]

    def report(self, search: Search | None, status: str, stopped_because: str = "") -> Report:
        """The report as things stand."""
        measured = search.measured if search else {}
        winner = pick(measured) if measured else None
        earlier = sum(m.from_earlier_run for m in measured.values())
        return Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            autotune_version=__version__,
            status=status,  # type: ignore[arg-type]
            environment=self.job.environment,
            workload=self.job.workload,
            memory_limit_bytes=self.job.memory_limit,
            warnings=tuple(self.job.warnings),
            profile=self.profile,
            profile_from_earlier_run=self.is_earlier_profile,
            candidates=tuple(self._candidate(index, search, winner) for index in range(len(self.predictions))),
            sweet_spot=self._sweet_spot(winner, measured) if winner is not None else None,
            search=SearchReport(
                sampler="best prospect first",
                trials=search.trials if search else 0,
                earlier_trials=earlier,
                real_steps=search.real_steps if search else 0,
                wall_s=search.elapsed_s if search else 0.0,
                stopped_because=stopped_because or (search.stopped_because if search else "") or "still running",
            ),
        )

    def _candidate(self, index: int, search: Search | None, winner: int | None) -> CandidateReport:
        outcome = search.outcomes.get(index) if search else None
        row = candidate_report(self.job.candidates[index], self.predictions[index], outcome, self.excluded[index])
        if winner is None or index == winner or row.measurement is None:
            return row
        loses_to = why_not(index, winner, self.predictions, self.job.candidates)
        return row.model_copy(update={"loses_to": loses_to})

    def _sweet_spot(self, winner: int, measured: dict[int, Measurement]) -> SweetSpot:
        candidate, best = self.job.candidates[winner], measured[winner]
        naive = [m for i, m in measured.items() if self.job.candidates[i].micro_batches == 1]
        peaks = best.peak_memory_bytes
        return SweetSpot(
            candidate=winner,
            micro_batches=candidate.micro_batches,
            micro_batch_size=candidate.micro_batch_size,
            schedule=candidate.schedule,
            virtual_stages=candidate.virtual_stages,
            throughput_seq_s=best.throughput_seq_s,
            speedup_over_naive=best.throughput_seq_s / naive[0].throughput_seq_s if naive else None,
            memory_headroom_bytes=tuple(self.job.memory_limit - peak for peak in peaks) if peaks else None,
            reason=reason(winner, measured, self.job.candidates),
            confirmed=True,
        )


def make_search(job: Job, found: Findings, save: Callable[[Search], None]) -> Search:
    """The search over the candidates that are not excluded, on this job's ranks."""
    name = study_name(job)

    def measure(
        candidate: Candidate, prediction: Prediction, steps: int, keep_going: Callable[[int, float], bool]
    ) -> Measurement | Failure:
        plan = Prepare(**candidate.model_dump(exclude={"virtual_stages"}))
        return measure_candidate(job.ranks, job.workload, plan, prediction.step_time_s, steps, keep_going)

    return Search(
        candidates=job.candidates,
        predictions=found.predictions,
        allowed=[index for index, reason in enumerate(found.excluded) if reason is None],
        study=Study(job.config.state_dir, name, job.candidates, job.config.fresh),
        measure=measure,
        limits=Limits(job.config.budget, job.config.trials, job.config.exhaustive),
        on_progress=lambda text: job.events.progress(text, None),
        on_outcome=save,
        rule_of_thumb=4 * job.workload.stages,
        seed=job.config.seed,
    )


def study_name(job: Job) -> str:
    """Names the workload in words, and everything else that makes figures comparable in a fingerprint."""
    work = job.workload
    keys = [(c.micro_batches, c.micro_batch_size, c.schedule) for c in job.candidates]
    mark = fingerprint(work, job.environment, keys)
    return f"{work.layers} layers, {work.stages} stages, batch {work.batch}, {job.environment.device} [{mark}]"


def tune(config: Config, events: Events) -> Report:
    """Runs the whole job and returns the report that is also at ``config.out``, the profile beside it.

    Raises MemoryLimitError when nothing fits, DeviceError when no candidate ran, Interrupted after Ctrl-C; whatever
    was measured by then is on disk.
    """
    writable(config.out)
    job = prepare_job(config, events)
    try:
        profile, is_earlier = obtain_profile(job)
        write_record(config.out.parent / "profile.json", profile)
        predictions = [predict(profile, candidate, job.memory_limit) for candidate in job.candidates]
        found = Findings(job, profile, is_earlier, predictions, exclusions(job, profile, predictions))
        return search_and_report(job, found)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the profile was complete; nothing was written") from None
    finally:
        job.ranks.stop()


def search_and_report(job: Job, found: Findings) -> Report:
    """The second half of ``tune``: from predictions to the report on disk."""
    out = job.config.out
    if all(reason == "does not fit" for reason in found.excluded):
        write_record(out, found.report(None, "infeasible", "no candidate fits in memory"))
        least = min(max(prediction.peak_memory_bytes or (0,)) for prediction in found.predictions)
        raise MemoryLimitError(
            f"no candidate fits in {show_bytes(job.memory_limit)} per rank: the leanest needs {show_bytes(least)};"
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
    except KeyboardInterrupt:
        write_record(out, found.report(search, "partial", "interrupted by the user"))
        raise Interrupted(f"interrupted; what was measured is in {out}, and the next run goes on from there") from None
    report = found.report(search, "complete" if search.measured else "partial")
    write_record(out, report)
    if not search.measured:
        failures = [outcome for outcome in search.outcomes.values() if isinstance(outcome, Failure)]
        raise DeviceError(f"every candidate failed; the first: {failures[0].message}" if failures else "nothing ran")
    return report


def profile_only(config: Config, events: Events) -> Profile:
    """Only measures the stages and links, for ``autotune profile``."""
    writable(config.out)
    job = prepare_job(config, events)
    try:
        profile, _ = obtain_profile(job)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the profile was complete; nothing was written") from None
    finally:
        job.ranks.stop()
    write_record(config.out, profile)
    return profile
