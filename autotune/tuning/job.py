"""What is settled before the search: Config -> Job."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autotune.backend.open import open_backend
from autotune.backend.protocol import Backend, ProfileNeeds, needs_of
from autotune.config import Config
from autotune.disk import refusal
from autotune.errors import InputError
from autotune.events import Events, Remembered
from autotune.records.base import not_written
from autotune.records.prediction import Candidate
from autotune.report.hosts import places
from autotune.report.units import show_bytes
from autotune.report.workload import model_words, replicas_text, samples


@dataclass
class Job:
    """What is settled before anything is measured. ``events`` keeps what is warned of in ``warnings`` as well."""

    config: Config
    backend: Backend
    candidates: list[Candidate]
    events: Events
    warnings: list[str] = field(default_factory=list)
    command: str | None = None  # that the user typed
    profiling_s: float = 0.0  # that devices worked for profiles

    @property
    def needs(self) -> list[ProfileNeeds]:
        """What profiles predictions are made from, one for every number of stages per rank, ascending."""
        return needs_of(self.candidates)

    @property
    def devices(self) -> int:
        """Devices of all replicas together."""
        return self.backend.ranks * self.backend.facts.replicas

    def warn(self, text: str) -> None:
        self.events.warn(text)


def writable(path: Path) -> None:
    """Raises InputError where ``path`` could not be written at the end of the run."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory; give a file with --out")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no directory {path.parent}; make it or give another --out")
    if refused := refusal(path.parent):
        raise not_written(path, refused)


def prepare_job(config: Config, events: Events) -> Job:
    """Look at the machine, or at the hosts of a rendezvous, and settle sizes, candidates and limits; start no rank
    yet. Whoever asks for it closes the backend."""
    warnings: list[str] = []
    events = Remembered(events, warnings)
    backend = open_backend(config, events)
    try:
        candidates, notes = backend.candidates()
    except BaseException:
        backend.close()
        raise
    job = Job(config, backend, candidates, events, warnings)
    events.header(header(job))
    for note in notes:
        job.warn(note)
    return job


@contextmanager
def prepared(config: Config, events: Events) -> Iterator[Job]:
    """Yield a job, and close its backend afterwards."""
    job = prepare_job(config, events)
    try:
        yield job
    finally:
        job.backend.close()


def header(job: Job) -> list[str]:
    """Return what will be tried, on what."""
    work, here = job.backend.facts, job.backend.environment
    devices = f"{here.cores} cores ({', '.join(here.devices)})" if here.device == "cpu" else ", ".join(here.devices)
    counts = ", ".join(str(count) for count in sorted({c.micro_batches for c in job.candidates}))
    schedules = ", ".join(dict.fromkeys(c.schedule for c in job.candidates))
    fixed = f" of {job.config.micro_batch_size}" if job.config.micro_batch_size else ""
    most = job.backend.memory_limit
    limit = f", {show_bytes(most)} per rank" if most else ""
    software = f", torch {here.torch_version}" if here.torch_version else ""
    known = {
        "hidden": work.hidden,
        "heads": work.heads,
        "sequence": work.seq_len,
        "vocab": work.vocab,
    }
    sizes = "".join(f", {name} {value}" for name, value in known.items() if value is not None)
    kinds = "".join(f", {value}" for value in (work.precision, work.optimizer) if value is not None)
    lines = [
        f"device    {here.device}{': ' if devices else ''}{devices}{software}{limit}",
        f"workload  {model_words(work)} in {work.stages} stages{sizes}{kinds}",
        f"batch     {work.batch} {samples(work)}{replicas_text(work)}, m in {counts} micro-batches{fixed}, {schedules}",
    ]
    return [*lines, f"hosts     {places(here.hosts)}"] if here.hosts else lines
