"""report.json: the record that launchers and CI jobs read."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from autotune.records.base import SCHEMA_VERSION, Record, write_record
from autotune.records.correctness import Agreement, Soundness
from autotune.records.failure import Failure
from autotune.records.job.command import CommandFacts
from autotune.records.job.environment import COMMAND, Environment
from autotune.records.job.layout import Layout, PlannedLayout
from autotune.records.job.recompute import show_modes
from autotune.records.job.split import show_split
from autotune.records.job.workload import WorkloadFacts
from autotune.records.outcome import Measurement
from autotune.records.prediction import Basis, Candidate, Dimensions, Prediction, Revision
from autotune.records.profile import Profile
from autotune.records.rows import Row, frame_of, html_table
from autotune.records.timed_run import TimedRun
from autotune.records.verdict import Estimate, SearchReport, Source


class RelativeError(Record):
    """(prediction - measurement) / measurement."""

    step_time: float
    """The step time's; above 0 is predicted too slow."""
    peak_memory: float | None = None
    """The peak memory's, of the rank where it is largest in size; null where not known."""


REPORT, PREDICTION = "autotune.report", "autotune.prediction"
"""Kinds of a report: of a run, and of a prediction for which nothing ran."""


class CandidateReport(Dimensions):
    """One candidate: what was predicted, what was measured or went wrong, or why it was not tried. ``rate`` is what
    every part of a report states."""

    padding: NonNegativeInt
    """Rows of a step that only fill up the last micro-batches."""
    prediction: Prediction
    """Prediction made before any trial."""
    last_prediction: Revision | None = None
    """Prediction with what trials before its own had taught."""
    measurement: Measurement | None = None
    """The measurement by real steps; null where none ran."""
    estimate: Estimate | None = None
    """The present estimate; every part of a report states it."""
    pace: PositiveFloat | None = None
    """The factor by which steps took longer than usual on this machine while it was measured."""
    failure: Failure | None = None
    """The failure of its run; null where there was none."""
    relative_error: RelativeError | None = None
    """The error of the first prediction."""
    agreement: Agreement | None = None
    """The difference of loss and gradient norm from another candidate's."""
    doubts: tuple[str, ...] = ()
    """Why it should not be used although it ran, a short phrase for each reason."""
    excluded: str | None = None
    """Why it was not tried; null where it may be tried."""
    over_limit_bytes: PositiveInt | None = None
    """Bytes that the fullest rank needs beyond the memory limit, measured or else predicted; null where it fits, or is
    not known."""
    loses_to: str | None = None
    """The part of a step in which it loses most to the winner."""

    @property
    def candidate(self) -> Candidate:
        """The candidate by itself."""
        return Candidate(**self.dimensions, sequences=self.sequences)

    @property
    def sequences(self) -> int:
        """The real ones of a step."""
        return self.micro_batches * self.micro_batch_size - self.padding

    @property
    def rate(self) -> float:
        """The estimated sequences per second. Reports of older versions have no estimate: there the median of the
        measured steps, or the last prediction, stands for it."""
        return self.stated.throughput_seq_s

    @property
    def stated(self) -> Estimate | Measurement | Revision | Prediction:
        """The step that every part of a report states: estimated, or what stands for that."""
        return self.estimate or self.measurement or self.last_prediction or self.prediction

    @property
    def source(self) -> Source:
        """The origin of the rate: real steps of this candidate, or prediction alone."""
        return "measured" if self.measurement else "predicted"

    @property
    def may_win(self) -> bool:
        """True where nothing rules the candidate out under the limits in force. An extrapolated figure alone does not
        win."""
        is_out = self.failure is not None or self.excluded is not None or self.over_limit_bytes is not None
        return not is_out and (self.measurement is not None or self.is_eligible_as_predicted)

    @property
    def is_eligible_as_predicted(self) -> bool:
        """True where the prediction by itself may be a reason to choose the candidate: an extrapolated one only where
        whole steps of other candidates stand behind it."""
        is_backed = self.prediction.basis is not Basis.EXTRAPOLATED or self.estimate is not None
        return self.prediction.fits is not False and is_backed

    @property
    def peak(self) -> int | None:
        """Bytes of the fullest rank: measured, or predicted; None where neither is known."""
        peaks = (self.measurement.peak_memory_bytes if self.measurement else None) or self.prediction.peak_memory_bytes
        return max(peaks) if peaks else None

    def row(self, replicas: int = 1) -> Row:
        """Return the candidate as one row of a table: flat names, seconds, bytes; memory is that of the fullest rank.

        ``throughput_seq_s`` and ``step_time_s`` are what every part of a report states; beside them stand what was
        predicted before any candidate ran and the median of what was measured. ``replicas``: by which rates are
        multiplied.
        """
        first, ran, stated, error = self.prediction, self.measurement, self.stated, self.relative_error
        tokens = first.throughput_tokens_s / first.throughput_seq_s if first.throughput_tokens_s else None
        return {
            **self.dimensions,
            "split": show_split(self.split) if self.split else None,
            "recompute": show_modes(self.recompute) if self.recompute else None,
            "padding": self.padding,
            "source": self.source,
            "throughput_seq_s": self.rate * replicas,
            "throughput_tokens_s": self.rate * replicas * tokens if tokens else None,
            "step_time_s": stated.step_time_s,
            "step_time_low_s": None if isinstance(stated, Measurement) else stated.step_time_low_s,
            "step_time_high_s": None if isinstance(stated, Measurement) else stated.step_time_high_s,
            "peak_memory_bytes": self.peak,
            "fits": False if self.over_limit_bytes is not None else first.fits,
            "predicted_step_time_s": first.step_time_s,
            "predicted_peak_memory_bytes": max(first.peak_memory_bytes) if first.peak_memory_bytes else None,
            "basis": first.basis.value,
            "bubble_fraction": first.bubble_fraction,
            "model_flops_utilisation": first.model_flops_utilisation,
            "measured_step_time_s": ran.step_time_s if ran else None,
            "measured_steps": len(ran.step_times_s) if ran else None,
            "measured_peak_memory_bytes": max(ran.peak_memory_bytes) if ran and ran.peak_memory_bytes else None,
            "relative_error_step_time": error.step_time if error else None,
            "relative_error_peak_memory": error.peak_memory if error else None,
            "loss": ran.loss if ran else None,
            "failure": self.failure.kind if self.failure else None,
            "excluded": self.excluded,
            "doubts": "; ".join(self.doubts) or None,
        }


class Neighbour(Record):
    """A candidate on the curve of throughput over m."""

    candidate: NonNegativeInt
    """Index into ``candidates``."""
    micro_batches: PositiveInt
    """Micro-batches per step (m)."""
    loss: float
    """Share of the curve's best throughput that it loses."""
    source: Source
    """The source: real steps of it, or the prediction alone."""


class KneeReport(Record):
    """The smallest m within 1 % of the best under the winner's schedule, and one step to either side."""

    at: Neighbour
    """The knee."""
    fewer: Neighbour | None
    """One step to fewer micro-batches; null where there is none."""
    more: Neighbour | None
    """One step to more micro-batches; null where there is none."""


class SweetSpot(Dimensions):
    """The recommendation. Candidates are named by their index into ``candidates``."""

    candidate: NonNegativeInt
    """Index of the recommended candidate."""
    certainty: NonNegativeFloat | None = None
    """Probability that it is the right choice."""
    undecided_with: tuple[NonNegativeInt, ...] = ()
    """Those that might be it instead, where the certainty is below 80 %."""
    baseline: NonNegativeInt | None = None
    """The candidate that the speed-up is against: m = 1 or, where that does not fit or did not run, the smallest m that
    did."""
    throughput_seq_s: float
    """Estimated throughput, sequences per second."""
    speedup_over_naive: float | None
    """Throughput over that of the baseline; null where there is none."""
    present: NonNegativeInt | None = None
    """The candidate that the user's command ran with before, where it was measured; null where it was not."""
    speedup_over_present: float | None = None
    """Throughput over that of ``present``."""
    memory_headroom_bytes: tuple[int, ...] | None
    """By rank, memory limit less peak; null where either is not known."""
    reason: str
    """The rule that decided, as a sentence."""
    confirmed: bool = True
    """True where real steps confirmed it."""
    knee: KneeReport | None = None
    """The knee of throughput over m under its schedule."""
    ties: tuple[str, ...] = ()
    """A sentence for each candidate that is as fast, with what the choice saves."""


class RecordedStep(Record):
    """A real step, action by action; of a few that were recorded the one of median length. Its times count from the
    moment at which the first rank began the step, by rank and in the order of the rank's actions, which ``autotune
    timeline REPORT --format json`` lists."""

    candidate: NonNegativeInt
    """Index into ``candidates``."""
    step_time_s: PositiveFloat
    """Seconds of the step."""
    starts_s: tuple[tuple[float, ...], ...]
    """By rank and action, when it began."""
    ends_s: tuple[tuple[float, ...], ...]
    """By rank and action, when it ended."""


class Report(Record):
    """Everything one run found out; or, of ``autotune predict``, all that was predicted."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    """Form of the file."""
    kind: Literal["autotune.report", "autotune.prediction"] = "autotune.report"
    """Which file it is: of a run, or of a prediction for which nothing ran."""
    created: str
    """Time at which it was written, ISO 8601."""
    autotune_version: str
    """Version of autotune."""
    command: str | None = None
    """The command that the user typed, without credentials."""
    recommended: NonNegativeInt | None = None
    """Index of the recommended candidate, as in ``sweet_spot``; null where there is none."""
    status: Literal["complete", "partial", "infeasible"]
    """complete: the search ended; partial: it was interrupted or still runs; infeasible: nothing fits in memory."""
    fingerprint: str | None = None
    """16 hexadecimal digits, alike in reports whose figures may be compared."""
    environment: Environment
    """Machine and software."""
    workload: WorkloadFacts
    """The training job."""
    peak_flops: PositiveFloat | None = None
    """Floating-point operations per second that one device reaches at its best, as the user said."""
    memory_limit_bytes: PositiveInt | None = None
    """Bytes that each rank may hold."""
    warnings: tuple[str, ...] = ()
    """The warnings of the run."""
    profile: Profile
    """The profile behind the predictions."""
    virtual_profiles: tuple[Profile, ...] = ()
    """Profiles of further numbers of stages per rank, where candidates have several."""
    layout: Layout | None = None
    """How the model lies on many devices, where that was planned; rates and batch are those of one replica."""
    layouts: tuple[PlannedLayout, ...] = ()
    """The best layouts of as many devices, the quickest first, where they were looked for."""
    profile_from_earlier_run: bool = False
    """True where no stage was measured in this run."""
    training_command: CommandFacts | None = None
    """The user's own command that was tuned, and what it ran with before; null where none was."""
    timed_runs: tuple[TimedRun, ...] = ()
    """Runs made elsewhere that the predictions are learned from."""
    candidates: tuple[CandidateReport, ...] = Field(min_length=1)
    """Every candidate."""
    sweet_spot: SweetSpot | None = None
    """The recommendation; null where there is none."""
    soundness: Soundness | None = None
    """The comparison of what candidates computed."""
    recorded_step: RecordedStep | None = None
    """A real step of the pick, action by action, where it was asked for."""
    search: SearchReport
    """Trials, steps and seconds that the search took, and why it ended."""

    def rows(self) -> list[Row]:
        """Return the table, a dictionary for each candidate: its index, what it is, what is known of it, and whether it
        is recommended, or could be instead. Rates are of all replicas."""
        spot = self.sweet_spot
        rivals = spot.undecided_with if spot else ()
        marks = [
            {"is_recommended": spot is not None and index == spot.candidate, "is_undecided": index in rivals}
            for index in range(len(self.candidates))
        ]
        rows = [row.row(self.replicas) for row in self.candidates]
        return [{"candidate": at, **row, **marks[at]} for at, row in enumerate(rows)]

    def save(self, path: str | PathLike[str]) -> None:
        """Write report.json; raise InputError where it cannot be written."""
        write_record(Path(path), self)

    def to_frame(self) -> Any:
        """Return the rows as a pandas.DataFrame, by the index of the candidate; raise ImportError, which says what to
        install, where there is no pandas."""
        return frame_of(self.rows()).set_index("candidate")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what fits in a line: the whole is ``model_dump()``."""
        yield "status", self.status
        yield "candidates", len(self.candidates)
        if self.sweet_spot is not None:
            yield "recommended", self.candidates[self.sweet_spot.candidate].label
            yield "throughput_seq_s", float(f"{self.replicas * self.sweet_spot.throughput_seq_s:.4g}")
            yield "certainty", self.sweet_spot.certainty

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        return html_table(repr(self), self.rows())

    @property
    def devices(self) -> int:
        """Devices that a step of all that is reported runs on."""
        return self.layout.devices if self.layout else self.profile.devices

    @property
    def replicas(self) -> int:
        """Pipelines that share a global batch where rates are those of one: in a layout on paper."""
        return self.layout.data_parallel if self.layout else 1

    @property
    def data_parallel(self) -> int:
        """Replicas of the pipeline."""
        return self.layout.data_parallel if self.layout else self.workload.replicas

    @property
    def is_fitted(self) -> bool:
        """True where what is called prediction was fitted to the very steps that ran: of a command of one's own."""
        return self.environment.device == COMMAND and not self.is_predicted

    @property
    def is_predicted(self) -> bool:
        """True of a prediction for which nothing ran."""
        return self.kind == PREDICTION

    @property
    def model_flops_utilisation(self) -> float | None:
        """Share of the devices' best that the sweet spot's step reaches in the model's own arithmetic (MFU): a forward,
        and a backward of twice as much; what is computed again does not count. None where the peak is not known."""
        operations, spot = self.workload.forward_operations, self.sweet_spot
        if self.peak_flops is None or operations is None or spot is None:
            return None
        return 3 * operations * spot.throughput_seq_s / (self.profile.devices * self.peak_flops)

    @model_validator(mode="after")
    def _indices_are_of_candidates(self) -> Self:
        spot, step = self.sweet_spot, self.recorded_step
        named = [point.candidate for point in self.search.pareto_front]
        named += [spot.candidate, *spot.undecided_with] if spot else []
        named += [spot.baseline] if spot and spot.baseline is not None else []
        named += [step.candidate] if step else []
        if spot and spot.knee:
            named += [side.candidate for side in (spot.knee.fewer, spot.knee.at, spot.knee.more) if side]
        named += [spot.present] if spot and spot.present is not None else []
        named += [self.recommended] if self.recommended is not None else []
        if max(named, default=0) >= len(self.candidates):
            raise ValueError(f"candidate {max(named)} is named, and there are only 0 to {len(self.candidates) - 1}")
        return self


def relative_error(prediction: Prediction, measurement: Measurement) -> RelativeError:
    """Return how far the first prediction is from what was measured."""
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
    """Return the report's row of one candidate."""
    measurement = outcome if isinstance(outcome, Measurement) else None
    return CandidateReport(
        **candidate.dimensions,
        padding=candidate.padding,
        prediction=prediction,
        measurement=measurement,
        failure=outcome if isinstance(outcome, Failure) else None,
        relative_error=relative_error(prediction, measurement) if measurement else None,
        excluded=excluded,
    )
