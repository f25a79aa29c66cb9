"""From a file to the runs in it: a CSV has a run per row, a log of a launcher is one run."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from autotune.errors import InputError
from autotune.logs.formats.spec import LogFormat, Role
from autotune.logs.log import Log, StepShape, read_lines, step_seconds
from autotune.logs.steady import steady
from autotune.records.complaint import explain
from autotune.records.job.workload import WorkloadFacts
from autotune.records.timed_run import TimedRun
from autotune.schedule_spec import ScheduleName, default_schedule, schedule_named

REQUIRED = ("micro_batches", "micro_batch_size", "step_time_s")
TAIL = 3
"""Last lines of a log that a message repeats."""
MOST_BYTES = 2**32
"""Of a log that is read."""


class Stated(NamedTuple):
    """What the user states of all runs, for what their logs do not say; None: not stated."""

    stages: int | None = None
    batch: int | None = None  # of one replica
    data_parallel: int | None = None
    micro_batches: int | None = None
    micro_batch_size: int | None = None
    schedule: ScheduleName | None = None
    virtual_stages: int | None = None


class ReadRuns(NamedTuple):
    """The runs of a file, what its launcher says of the job, and in words how they were read."""

    runs: tuple[TimedRun, ...]
    facts: WorkloadFacts
    notes: tuple[str, ...]


def read_runs(path: Path, formats: tuple[LogFormat, ...], stated: Stated) -> ReadRuns:
    """Return the runs of a CSV or a log; raise InputError with the path, and the line or field."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline=None) as file:
            first = file.readline(MOST_BYTES)
            if is_table(first):
                rows = list(csv.DictReader(file, fieldnames=[name.strip() for name in first.strip().split(",")]))
                runs = tuple(run_of_row(path, number, row) for number, row in enumerate(rows, start=2))
                return ReadRuns(runs, WorkloadFacts(), ())
            file.seek(0)
            return run_of_log(path, read_lines(file, formats), stated)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a CSV or a log") from None


def is_table(line: str) -> bool:
    """Return whether a first line is the head of a CSV."""
    names = {name.strip() for name in line.strip().lstrip("\ufeff").split(",")}
    return len(names & set(REQUIRED)) >= 2


def run_of_row(path: Path, number: int, row: Mapping[str, str | None]) -> TimedRun:
    """Return the run of one row; columns that are empty or not known are left out."""
    given: dict[str, Any] = {
        name: value.strip() for name, value in row.items() if name in TimedRun.model_fields and value and value.strip()
    }
    absent = [name for name in REQUIRED if name not in given]
    if absent:
        raise InputError(f"{path}, line {number}: {absent[0]} is missing; a row needs {', '.join(REQUIRED)}")
    if "peak_memory_bytes" in given:
        given["peak_memory_bytes"] = tuple(given["peak_memory_bytes"].split(";"))
    if "schedule" not in given and given.get("virtual_stages", "1") != "1":
        given["schedule"] = default_schedule(2)
    if "schedule" in given:
        given["schedule"] = schedule_named(given["schedule"]) or given["schedule"]
    try:
        return TimedRun(**given, source=f"{path}:{number}")
    except ValidationError as error:
        raise InputError(f"{path}, line {number}: {explain(error, TimedRun)}") from None


def run_of_log(path: Path, log: Log, stated: Stated) -> ReadRuns:
    """Return the one run that a log tells of."""
    if log.form is None:
        raise InputError(
            f"{path}: no step was recognised in {log.lines} lines; name the format with --read, or give a pattern such"
            " as --read 'took (?P<step_time_ms>[0-9.]+) ms'"
        )
    shape = settle(path, log, stated)
    seconds = step_seconds(log.steps, shape.steps)
    if not seconds:
        raise InputError(
            f"{path}: {len(log.steps)} steps of {log.form.name} were recognised, but none is timed: the log gives no"
            " time, or too little to turn a rate into one; give --data-parallel and --batch, or a CSV"
        )
    timed = steady(seconds)
    run = TimedRun(
        micro_batches=shape.micro_batches,
        micro_batch_size=shape.micro_batch_size,
        step_time_s=timed.step_time_s,
        standard_error=timed.standard_error,
        steps=len(timed.steps),
        peak_memory_bytes=peaks(log, shape.stages),
        schedule=shape.schedule,
        virtual_stages=shape.virtual_stages,
        data_parallel=shape.data_parallel,
        source=str(path),
    )
    note = (
        f"{path}: {log.form.name}, m = {run.micro_batches} of b = {run.micro_batch_size}: {run.steps} steady steps,"
        f" median {run.step_time_s:.4g} s, {timed.left_out} before them left out"
    )
    return ReadRuns((run,), shape.facts, (note,))


def peaks(log: Log, stages: int | None) -> tuple[int, ...] | None:
    """Return the peak memory of every stage; of the fullest alone where ranks are more or fewer than stages."""
    found = [log.memory[rank].reserved_bytes or log.memory[rank].allocated_bytes or 0 for rank in sorted(log.memory)]
    if not found or not max(found):
        return None
    return tuple(found) if len(found) == stages else (max(found),)


class Shape(NamedTuple):
    """The numbers of a run, settled from its log and from what the user states."""

    micro_batches: int
    micro_batch_size: int
    stages: int | None
    virtual_stages: int
    schedule: ScheduleName
    data_parallel: int
    steps: StepShape
    facts: WorkloadFacts


def settle(path: Path, log: Log, stated: Stated) -> Shape:
    """Return the numbers of a run; raise InputError where m or b follows from nothing."""
    told = {role: int(text) for role, text in log.arguments.items() if text.isdecimal() and int(text)}
    printed = next((step.line.sequences for step in log.steps if step.line.sequences), None)
    stages = stated.stages or told.get(Role.STAGES)
    replicas = stated.data_parallel or told.get(Role.DATA_PARALLEL) or replicas_of(told) or 1
    everything = told.get(Role.GLOBAL_BATCH) or printed
    batch = stated.batch or told.get(Role.REPLICA_BATCH) or (everything // replicas if everything else None)
    size = stated.micro_batch_size or told.get(Role.MICRO_BATCH_SIZE)
    count = stated.micro_batches or told.get(Role.MICRO_BATCHES)
    size = size or (batch // count if batch and count else None)
    count = count or (batch // size if batch and size else None)
    if not size or not count:
        raise InputError(
            f"{path}: the log does not say {'b' if not size else 'm'}; give --batch and --micro-batch-size, or a CSV"
            f" with the columns {', '.join(REQUIRED)}"
        )
    cut = stated.virtual_stages or told.get(Role.VIRTUAL_STAGES) or 1
    sequences, seq_len = size * count * replicas, told.get(Role.SEQ_LEN)
    return Shape(
        micro_batches=count,
        micro_batch_size=size,
        stages=stages,
        virtual_stages=cut,
        schedule=stated.schedule or schedule_named(log.arguments.get(Role.SCHEDULE)) or default_schedule(cut),
        data_parallel=replicas,
        steps=StepShape(
            sequences, sequences * seq_len if seq_len else None, told.get(Role.DEVICES) or (stages or 1) * replicas
        ),
        facts=WorkloadFacts(
            layers=told.get(Role.LAYERS),
            stages=stages,
            hidden=told.get(Role.HIDDEN),
            heads=told.get(Role.HEADS),
            seq_len=seq_len,
            vocab=told.get(Role.VOCAB),
            batch=size * count,
        ),
    )


def replicas_of(told: Mapping[Role, int]) -> int | None:
    """Return replicas from the batch of all of them, where the log says m and b of one."""
    parts = [told.get(role) for role in (Role.GLOBAL_BATCH, Role.MICRO_BATCH_SIZE, Role.MICRO_BATCHES)]
    everything, size, count = parts
    return everything // (size * count) if everything and size and count and everything >= size * count else None
