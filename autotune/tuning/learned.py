"""From files with runs to a report of what they teach: what ``autotune fit`` and ``autotune tell`` do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from autotune.config import Config, load_config
from autotune.errors import InputError, UsageError
from autotune.logs.formats.table import formats_for
from autotune.logs.runs import Stated, read_runs
from autotune.plan.fit.fit import fit
from autotune.predict.predict import candidates_for
from autotune.quantities import parse_bytes, parse_seconds
from autotune.records.complaint import explain
from autotune.records.job.workload import WorkloadFacts
from autotune.records.prediction import Candidate
from autotune.records.report import Report
from autotune.records.timed_run import TimedRun
from autotune.report.paper.fitted import fitted_report
from autotune.schedule_spec import ScheduleName, schedule_named, why_illegal
from autotune.tuning.told import ToldStep, with_step


class Asked(NamedTuple):
    """The flags of ``autotune fit``, as text or as values; None where not given."""

    stages: int | None = None
    batch: int | None = None
    data_parallel: int | None = None
    micro_batches: str | Sequence[int] | None = None
    micro_batch_size: int | None = None
    schedule: str | Sequence[str] | None = None
    virtual_stages: str | int | Sequence[int] | None = None
    memory_limit: str | int | None = None


class Told(NamedTuple):
    """The flags of ``autotune tell``; None where not given."""

    micro_batches: int
    step_time: str
    micro_batch_size: int | None = None
    schedule: ScheduleName | None = None
    virtual_stages: int | None = None
    peak_memory: str | None = None


def learned_report(paths: Sequence[Path], read: str, asked: Asked, command: str | None = None) -> Report:
    """Return the report of the runs in all files. Raises InputError for a file, UsageError for flags that do not
    agree."""
    formats = formats_for(read)
    flags = {name: value for name, value in asked._asdict().items() if name not in ("data_parallel", "stages")}
    config = load_config(None, {**flags, "stages": asked.stages, "layers": asked.stages, "micro_batch_size": None})
    stated = stated_in(config, asked)
    files = [read_runs(path, formats, stated) for path in paths]
    runs = tuple(run for file in files for run in file.runs)
    facts = common_facts([file.facts for file in files], asked, runs)
    check_runs(runs, facts.stages or 1)
    notes = [note for file in files for note in file.notes]
    candidates, left_out = candidates_of(config, facts, runs)
    fitted = fit(facts, runs, candidates, config.memory_limit)
    return fitted_report(fitted, facts, runs, config.memory_limit, [*notes, *left_out], command)


def told_report(report: Report, told: Told, command: str | None = None) -> Report:
    """Return a report with one run more: one of runs is fitted anew, any other is what a search would say then. Raises
    UsageError for flags."""
    seconds = checked_quantity("--step-time", told.step_time, parse_seconds)
    peak = checked_quantity("--peak-memory", told.peak_memory, parse_bytes) if told.peak_memory else None
    if not seconds > 0:
        raise UsageError(f"--step-time: a step takes more than 0 seconds (given: {told.step_time})")
    schedule = schedule_named(told.schedule) or told.schedule
    if not report.timed_runs:
        step = ToldStep(
            told.micro_batches,
            seconds,
            told.micro_batch_size,
            schedule,
            told.virtual_stages,
            round(peak) if peak is not None else None,
        )
        return with_step(report, step, command)
    first, batch = report.timed_runs[0], report.workload.batch
    size = told.micro_batch_size or (-(-batch // told.micro_batches) if batch else None)
    run = checked_run(
        {
            "micro_batches": told.micro_batches,
            "micro_batch_size": size,
            "step_time_s": seconds,
            "peak_memory_bytes": (peak,) if peak is not None else None,
            "schedule": schedule or first.schedule,
            "virtual_stages": told.virtual_stages or first.virtual_stages,
            "data_parallel": first.data_parallel,
            "source": "autotune tell",
        }
    )
    runs = (*report.timed_runs, run)
    facts = report.workload
    check_runs((run,), facts.stages or 1)
    candidates = list(dict.fromkeys([*(row.candidate for row in report.candidates), run.candidate]))
    candidates.sort(key=lambda one: one.micro_batches)
    fitted = fit(facts, runs, candidates, report.memory_limit_bytes)
    return fitted_report(fitted, facts, runs, report.memory_limit_bytes, (), command)


def checked_quantity(flag: str, text: str, parse: Any) -> float:
    """Return the number of seconds or bytes that a flag gives; raise UsageError for anything else."""
    try:
        return float(parse(text))
    except ValueError as error:
        raise UsageError(f"{flag}: {error} (given: {text})") from None


def checked_run(fields: dict[str, Any]) -> TimedRun:
    """Return the run that flags describe; raise UsageError where it is none."""
    try:
        return TimedRun(**fields)
    except ValidationError as error:
        raise UsageError(f"tell: {explain(error, TimedRun)}") from None


def stated_in(config: Config, asked: Asked) -> Stated:
    """Return what the flags state of runs whose logs do not say it."""
    return Stated(
        stages=asked.stages,
        batch=asked.batch,
        data_parallel=asked.data_parallel,
        micro_batch_size=asked.micro_batch_size,
        schedule=config.schedule[0] if asked.schedule and len(config.schedule) == 1 else None,
        virtual_stages=config.virtual_stages[0] if asked.virtual_stages and len(config.virtual_stages) == 1 else None,
    )


def common_facts(told: Sequence[WorkloadFacts], asked: Asked, runs: Sequence[TimedRun]) -> WorkloadFacts:
    """Return what all files say of the job; raise InputError where they contradict each other, UsageError where nothing
    says the number of stages."""
    merged: dict[str, Any] = {}
    for facts in told:
        for name, value in asdict(facts).items():
            if value is None or name == "batch":
                continue
            if merged.setdefault(name, value) != value:
                raise InputError(
                    f"the runs are of different jobs: {name} is {merged[name]} in one and {value} in another; fit those"
                    " of one job"
                )
    stages = asked.stages or merged.get("stages")
    if stages is None:
        raise UsageError("--stages: no log says the number of pipeline stages; give it")
    batches = Counter(run.micro_batches * run.micro_batch_size for run in runs)
    batch = asked.batch or max(batches, key=lambda size: (batches[size], size))
    return WorkloadFacts(**merged | {"stages": stages, "batch": batch})


def check_runs(runs: Sequence[TimedRun], stages: int) -> None:
    """Raise InputError where a run cannot have been made on so many stages, or replicas differ."""
    replicas = sorted({run.data_parallel for run in runs})
    if len(replicas) > 1:
        raise InputError(
            f"the runs have {' and '.join(map(str, replicas))} replicas; fit those of one number at a time"
        )
    for run in runs:
        reason = why_illegal(run.schedule, stages, run.virtual_stages, run.micro_batches)
        if reason and run.schedule != "1F1B":
            raise InputError(f"{run.source or 'a run'}: {reason}; mend schedule, virtual_stages or --stages")


def candidates_of(config: Config, facts: WorkloadFacts, runs: Sequence[TimedRun]) -> tuple[list[Candidate], list[str]]:
    """Return the candidates that are asked for and those that ran with the same batch, in the order of m; and what is
    left out."""
    stages, batch = facts.stages or 1, facts.batch or 1
    given = config.model_fields_set
    schedules = config.schedule if "schedule" in given else tuple(dict.fromkeys(run.schedule for run in runs))
    cuts = config.virtual_stages if "virtual_stages" in given else tuple({run.virtual_stages for run in runs})
    counts = config.model_copy(update={"batch": batch}).counts()
    found, left_out = candidates_for(counts, schedules, cuts, stages, max(facts.layers or 0, stages * max(cuts)), batch)
    ran = [run.candidate for run in runs if run.candidate.sequences == batch]
    every = dict.fromkeys([*found, *ran])
    return sorted(every, key=lambda one: (one.micro_batches, one.schedule, one.virtual_stages)), left_out
