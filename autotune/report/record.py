"""report.json: the record that launchers and CI jobs read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from autotune.config import ScheduleName, Workload
from autotune.pipeline.outcome import Failure, Measurement
from autotune.predict.record import Candidate, Prediction
from autotune.profile.record import Environment, Profile
from autotune.records import SCHEMA_VERSION, Record, read_record


class RelativeError(Record):
    """(prediction - measurement) / measurement; ``peak_memory`` of the rank where it is largest in size."""

    step_time: float
    peak_memory: float | None = None


class CandidateReport(Record):
    """One candidate: what was predicted, what was measured or went wrong, or why it was not tried."""

    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    padding: NonNegativeInt
    schedule: ScheduleName
    virtual_stages: PositiveInt
    prediction: Prediction
    measurement: Measurement | None = None
    failure: Failure | None = None
    relative_error: RelativeError | None = None
    excluded: str | None = None
    loses_to: str | None = None


class SweetSpot(Record):
    """The recommendation. ``candidate`` is an index into ``candidates``; ``speedup_over_naive`` is against m = 1."""

    candidate: NonNegativeInt
    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    schedule: ScheduleName
    virtual_stages: PositiveInt
    throughput_seq_s: float
    speedup_over_naive: float | None
    memory_headroom_bytes: tuple[int, ...] | None
    reason: str
    confirmed: bool


class SearchReport(Record):
    """What the search cost. ``trials`` and ``real_steps`` are of this run; ``earlier_trials`` were taken over."""

    sampler: str
    trials: NonNegativeInt
    earlier_trials: NonNegativeInt = 0
    real_steps: NonNegativeInt
    wall_s: float
    stopped_because: str


class Report(Record):
    """Everything one run found out. ``profile_from_earlier_run``: no stage was measured in this run."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    kind: Literal["autotune.report"] = "autotune.report"
    created: str
    autotune_version: str
    status: Literal["complete", "partial", "infeasible"]
    environment: Environment
    workload: Workload
    memory_limit_bytes: PositiveInt | None = None
    warnings: tuple[str, ...] = ()
    profile: Profile
    profile_from_earlier_run: bool = False
    candidates: tuple[CandidateReport, ...] = Field(min_length=1)
    sweet_spot: SweetSpot | None = None
    search: SearchReport


def read_report(path: Path) -> Report:
    """Reads a report; raises InputError with path and field."""
    return read_record(path, Report, "autotune.report")


def relative_error(prediction: Prediction, measurement: Measurement) -> RelativeError:
    """How far the prediction is from what was measured."""
    memory = None
    if prediction.peak_memory_bytes and measurement.peak_memory_bytes:
        pairs = zip(prediction.peak_memory_bytes, measurement.peak_memory_bytes, strict=True)
        memory = max(((mine - real) / real for mine, real in pairs if real), key=abs, default=None)
    return RelativeError(
        step_time=(prediction.step_time_s - measurement.step_time_s) / measurement.step_time_s, peak_memory=memory
    )


def candidate_report(
    candidate: Candidate, prediction: Prediction, outcome: Measurement | Failure | None, excluded: str | None
) -> CandidateReport:
    """The report's row of one candidate."""
    measurement = outcome if isinstance(outcome, Measurement) else None
    return CandidateReport(
        micro_batches=candidate.micro_batches,
        micro_batch_size=candidate.micro_batch_size,
        padding=candidate.padding,
        schedule=candidate.schedule,
        virtual_stages=candidate.virtual_stages,
        prediction=prediction,
        measurement=measurement,
        failure=outcome if isinstance(outcome, Failure) else None,
        relative_error=relative_error(prediction, measurement) if measurement else None,
        excluded=excluded,
    )


def prediction_document(pairs: Sequence[tuple[Candidate, Prediction]]) -> dict[str, Any]:
    """What ``autotune predict --json`` prints: the candidates as in a report, in the order of m."""
    rows = [candidate_report(candidate, prediction, None, None) for candidate, prediction in pairs]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "autotune.prediction",
        "candidates": [row.model_dump(mode="json", by_alias=True) for row in rows],
    }
