"""What is settled before the search: Config -> Job, and the profiles that its predictions are made from."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.config import Config, load_config
from autotune.disk import refusal
from autotune.errors import DeviceError, InputError, MemoryLimitError, UsageError
from autotune.hosts import common_environment, rendezvous_of
from autotune.pipeline.control.commands import StageFacts
from autotune.pipeline.control.measure import build, describe
from autotune.pipeline.control.process import collect_environment
from autotune.pipeline.control.ranks import RankFailure, Ranks
from autotune.pipeline.control.starting import not_started
from autotune.pipeline.hosts.rendezvous import Rendezvous
from autotune.predict.calibrate import calibrated
from autotune.predict.predict import candidates_for
from autotune.predict.sweep import profile_candidates
from autotune.profile.cache import cached_profile, keep_profile, profile_path
from autotune.profile.measure import measure_profile
from autotune.profile.replay import replay_workload, replayed_device, replayed_profile
from autotune.records.base import not_written
from autotune.records.environment import Environment
from autotune.records.prediction import Candidate, Placement
from autotune.records.profile import Profile, read_profile
from autotune.records.report import Report
from autotune.records.workload import WorkloadConfig, WorkloadFacts
from autotune.report.hosts import places
from autotune.report.units import show_bytes
from autotune.schedule_spec import SCHEDULES
from autotune.workload.partition import stage_ranks


def ignore(*_: Any) -> None:
    """Do nothing: the listener where nobody listens."""


@dataclass
class Events:
    """Who listens: ``header(lines)``, ``warn(text)``, ``progress(text, fraction or None)``, ``outcome(report)``,
    ``known(text)``: what is known so far."""

    header: Callable[[list[str]], None] = ignore
    warn: Callable[[str], None] = ignore
    progress: Callable[[str, float | None], None] = ignore
    outcome: Callable[[Report], None] = ignore
    known: Callable[[str], None] = ignore


@dataclass
class Job:
    """What is settled before anything is measured.

    ``workload`` is what the ranks build, ``facts`` what the report says of it: where a ``recorded`` profile is
    replayed the ranks build next to nothing.
    """

    config: Config
    environment: Environment
    workload: WorkloadConfig
    facts: WorkloadFacts
    memory_limit: int | None
    candidates: list[Candidate]
    ranks: Ranks
    events: Events
    recorded: Profile | None = None
    command: str | None = None  # that the user typed
    profiling_s: float = 0.0  # that the ranks spent on profiles
    warnings: list[str] = field(default_factory=list)

    def sizes(self, virtual_stages: int) -> tuple[int, ...]:
        """Return every micro-batch size that some candidate of so many stages per rank needs, ascending."""
        of_cut = [candidate for candidate in self.candidates if candidate.virtual_stages == virtual_stages]
        return tuple(sorted({candidate.micro_batch_size for candidate in of_cut}))

    @property
    def cuts(self) -> list[int]:
        """Every number of stages per rank that some candidate has, ascending."""
        return sorted({candidate.virtual_stages for candidate in self.candidates})

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.events.warn(text)


def writable(path: Path) -> None:
    """Raises InputError where ``path`` could not be written at the end of the run."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory; give a file with --out")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no directory {path.parent}; make it or give another --out")
    if refused := refusal(path.parent):
        raise not_written(path, refused)


def choose_device(config: Config, environment: Environment, recorded: Profile | None) -> Environment:
    """Return the environment with the device that will be used; raises DeviceError where it is not here."""
    if recorded is not None:
        there = recorded.environment
        replayed = {"device": replayed_device(there), "memory_bytes": there.memory_bytes}
        return environment.with_gpus(()).model_copy(update={**replayed, "unseen_gpu": None, "mps": None})
    if config.device != "cpu" and environment.unseen_gpu:
        raise DeviceError(f"torch does not see the GPU of this host: {environment.unseen_gpu}; or give --device cpu")
    environment = environment.model_copy(update={"unseen_gpu": None})
    if config.device == "cuda" and environment.device != "cuda":
        raise DeviceError("--device cuda: torch sees no GPU here; use --device cpu, or see autotune doctor")
    if config.device == "cpu" and environment.device == "cuda":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        cpu = {"device": "cpu", "memory_bytes": memory, "mps": None}
        return environment.with_gpus(()).model_copy(update=cpu)
    if environment.device == "cuda" and len(environment.devices) < config.stages:
        raise DeviceError(
            f"{config.stages} stages need {config.stages} GPUs, but only {len(environment.devices)} are visible;"
            f" use --stages {len(environment.devices)}, or --device cpu"
        )
    if environment.device == "cuda":
        return environment.with_gpus(range(config.stages))  # rank r drives GPU r; a rendezvous has chosen already
    return environment


def prepare_job(config: Config, events: Events, rendezvous: Rendezvous | None = None) -> Job:
    """Looks at the machine, or at the hosts that are at the ``rendezvous``, and settles sizes, candidates and limits;
    starts no rank yet."""
    recorded = read_profile(config.profile) if config.profile else None
    events.progress("looking at the devices", None)
    seen = common_environment(rendezvous) if rendezvous else Environment.model_validate(collect_environment())
    environment = choose_device(config, seen, recorded)
    if recorded is not None:
        return replay_job(config, environment, recorded, events, rendezvous)
    kind = environment.device or "cpu"
    workload = config.workload(kind)
    sharing = environment.most_on_a_host(workload.stages) if kind == "cpu" else 1
    limit, capped = memory_limit(config, environment, sharing)
    candidates, notes = candidates_for(
        job_counts(config),
        config.schedule,
        config.virtual_stages,
        workload.stages,
        workload.layers,
        workload.batch,
        config.micro_batch_size,
    )
    ranks = Ranks(workload.stages, kind, memory_limit=limit, rendezvous=rendezvous)
    return announce(Job(config, environment, workload, workload, limit, candidates, ranks, events), capped + notes)


def memory_limit(config: Config, environment: Environment, sharing: int) -> tuple[int | None, list[str]]:
    """Return how many bytes of its device a rank may hold, with all that others hold there, and what to say of it.

    Never more than the device has. ``sharing``: ranks that share it, and have equal parts unless the config says more.
    """
    there, wanted = environment.memory_bytes, config.memory_limit
    if there is None or (wanted is not None and wanted <= there):
        return wanted, []
    if wanted is None:
        return there // sharing, []
    least = f"{show_bytes(there)} ({there} bytes)"
    return there, [f"--memory-limit: {show_bytes(wanted)} are more than the smallest device has; the limit is {least}"]


@contextmanager
def prepared(config: Config, events: Events) -> Iterator[Job]:
    """Yield a job with its ranks where the config wants them: here, or on the hosts that came to its rendezvous."""
    with rendezvous_of(config, lambda text: events.progress(text, None), events.warn) as rendezvous:
        yield prepare_job(config, events, rendezvous)


def replay_job(
    config: Config, environment: Environment, recorded: Profile, events: Events, rendezvous: Rendezvous | None
) -> Job:
    """Return the job of ranks that replay a recorded profile: what the profile says is settled already."""
    if "stages" in config.model_fields_set and config.stages != recorded.ranks:
        raise UsageError(f"--stages: the profile has {recorded.ranks} (given: {config.stages})")
    batch = config.batch if "batch" in config.model_fields_set else recorded.workload.batch or config.batch
    settled = load_config(None, config.model_dump(exclude_unset=True) | {"batch": batch})
    candidates, notes = profile_candidates(
        recorded, settled.model_copy(update={"micro_batches": job_counts(settled)}), batch
    )
    workload = replay_workload(recorded, batch)
    facts = recorded.workload.model_copy(update={"stages": recorded.ranks, "batch": batch})
    sharing = recorded.environment.most_on_a_host(recorded.ranks) if recorded.environment.device == "cpu" else 1
    limit = config.memory_limit or (recorded.environment.memory_bytes or 0) // sharing or None
    ranks = Ranks(recorded.ranks, "cpu", rendezvous=rendezvous)
    return announce(Job(settled, environment, workload, facts, limit, candidates, ranks, events, recorded), notes)


def job_counts(config: Config) -> tuple[int, ...]:
    """Return the numbers of micro-batches to try; m = 1 is always one, for it shows what pipelining buys."""
    return config.counts() if config.micro_batch_size else tuple(sorted({1, *config.counts()}))


def announce(job: Job, notes: list[str]) -> Job:
    """Says what will be tried, and what not."""
    if rendezvous := job.ranks.rendezvous:
        job.warnings += rendezvous.turned_away
        rendezvous.on_warning = job.warn
    job.events.header(header(job))
    for note in notes:
        job.warn(note)
    return job


def header(job: Job) -> list[str]:
    """Return what will be tried, on what."""
    work, here = job.facts, job.environment
    devices = f"{here.cores} cores ({', '.join(here.devices)})" if here.device == "cpu" else ", ".join(here.devices)
    counts = ", ".join(str(count) for count in sorted({c.micro_batches for c in job.candidates}))
    schedules = ", ".join(dict.fromkeys(c.schedule for c in job.candidates))
    fixed = f" of {job.config.micro_batch_size}" if job.config.micro_batch_size else ""
    limit = f", {show_bytes(job.memory_limit)} per rank" if job.memory_limit else ""
    known = {
        "hidden": work.hidden,
        "heads": work.heads,
        "sequence": work.seq_len,
        "vocab": work.vocab,
    }
    sizes = "".join(f", {name} {value}" for name, value in known.items() if value is not None)
    kinds = "".join(f", {value}" for value in (work.precision, work.optimizer) if value is not None)
    lines = [
        f"device    {here.device}{': ' if devices else ''}{devices}, torch {here.torch_version}{limit}",
        f"workload  {f'{work.layers} layers' if work.layers else 'model'} in {work.stages} stages{sizes}{kinds}",
        f"batch     {work.batch} sequences, m in {counts} micro-batches{fixed}, {schedules}",
    ]
    return [*lines, f"hosts     {places(here.hosts)}"] if here.hosts else lines


def check_weights(job: Job, static_bytes: list[int], virtual_stages: int) -> None:
    """Raises MemoryLimitError where weights, gradients and optimizer state alone exceed the limit."""
    held = [0] * job.workload.stages
    for rank, size in zip(stage_ranks(job.workload.stages, virtual_stages, False), static_bytes, strict=True):
        held[rank] += size
    fullest = max(range(len(held)), key=lambda rank: held[rank])
    if job.memory_limit is not None and held[fullest] > job.memory_limit:
        raise MemoryLimitError(
            f"rank {fullest} needs {held[fullest]} bytes ({show_bytes(held[fullest])}) for weights,"
            f" gradients and optimizer state, over the limit of {job.memory_limit} bytes"
            f" ({show_bytes(job.memory_limit)}); use more --stages, a smaller model or a higher --memory-limit"
        )


def obtain_profile(job: Job, virtual_stages: int) -> tuple[Profile, bool]:
    """Return the profile kept from an earlier run (True), or a new one measured on live ranks (False)."""
    if job.recorded is not None:
        return replay_on_ranks(job, job.recorded), False
    path = profile_path(job.config.state_dir, job.workload, job.environment, virtual_stages)
    of_cut = [candidate for candidate in job.candidates if candidate.virtual_stages == virtual_stages]
    split = any(SCHEDULES[candidate.schedule].backward == "split" for candidate in of_cut)
    sizes = job.sizes(virtual_stages)
    kept = None if job.config.fresh else cached_profile(path, sizes, split)
    if kept is not None:
        check_weights(job, [stage.static_bytes for stage in kept.stages], virtual_stages)
        return kept, True
    placement = Placement(virtual_stages=virtual_stages)
    facts = build_ranks(job, placement)
    notify = job.events.progress
    profile = calibrated(
        measure_profile(job.ranks, job.workload, placement, facts, sizes, job.environment, split, notify, job.warn)
    )
    keep_profile(path, profile)
    return profile, False


def build_ranks(job: Job, placement: Placement) -> list[StageFacts]:
    """Starts the ranks and builds the stages, unless the weights alone are too large; raises DeviceError."""

    def work() -> list[StageFacts]:
        if not job.ranks.alive:
            job.events.progress("starting the ranks", None)
            job.ranks.start()
        on_paper = [fact.static_bytes for fact in describe(job.ranks, job.workload, placement)]
        check_weights(job, on_paper, placement.virtual_stages)
        job.events.progress("building the stages", None)
        return build(job.ranks, job.workload, placement)

    try:
        return job.ranks.retry_lost_hosts(work)
    except RankFailure as error:
        if error.failure.kind == "out_of_memory":
            raise MemoryLimitError(
                f"the stages cannot be built: {error.failure.message}; use more --stages, a smaller model or a higher"
                " --memory-limit"
            ) from None
        raise not_started(job.ranks.device, error.failure) from None


def replay_on_ranks(job: Job, recorded: Profile) -> Profile:
    """Return the recorded profile with links and overhead measured on the ranks that will replay it."""
    build_ranks(job, Placement(virtual_stages=recorded.virtual_stages))
    job.events.progress("measuring links and the runtime's own cost", None)
    sizes = job.sizes(recorded.virtual_stages)
    return calibrated(replayed_profile(recorded, job.ranks, job.environment, sizes, job.warn))
