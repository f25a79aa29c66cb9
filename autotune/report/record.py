"""report.json: the record that launchers and CI jobs read."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from autotune.config import WorkloadFacts
from autotune.outcome import Failure, Measurement
from autotune.predict.record import Candidate, Prediction, Revision, schedule_words
from autotune.profile.record import Environment, Profile
from autotune.records import SCHEMA_VERSION, Record
from autotune.schedule_spec import ScheduleName
from autotune.verdict import Estimate, Objective, Stop


class RelativeError(Record):
    """(prediction - measurement) / measurement; ``peak_memory`` of the rank where it is largest in size."""

    step_time: float
    peak_memory: float | None = None


class Agreement(Record):
    """How far loss and gradient norm of the first step are from those of candidate ``reference``, which began with the
    same weights and saw the same batch: (own - reference's) / reference's, 0 but for rounding."""

    reference: NonNegativeInt
    loss: float
    gradient_norm: float


Source = Literal["measured", "predicted"]


class CandidateReport(Record):
    """One candidate: what was predicted, what was measured or went wrong, or why it was not tried.

    ``prediction`` was made before any trial, ``last_prediction`` with what trials before its own had taught;
    ``estimate`` is what is believed now, and ``rate`` what every part of a report states. ``pace``: how many times
    longer than usual steps took on this machine while it was measured. ``over_limit_bytes``: what the fullest rank
    needs beyond the memory limit in force, measured or else predicted; None where it fits, or is not known. ``doubts``:
    in a few words, why it should not be used although it ran.
    """

    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    padding: NonNegativeInt
    schedule: ScheduleName
    virtual_stages: PositiveInt
    prediction: Prediction
    last_prediction: Revision | None = None
    measurement: Measurement | None = None
    estimate: Estimate | None = None
    pace: PositiveFloat | None = None
    failure: Failure | None = None
    relative_error: RelativeError | None = None
    agreement: Agreement | None = None
    doubts: tuple[str, ...] = ()
    excluded: str | None = None
    over_limit_bytes: PositiveInt | None = None
    loses_to: str | None = None

    @property
    def schedule_words(self) -> str:
        """``Interleaved1F1B x2``."""
        return schedule_words(self.schedule, self.virtual_stages)

    @property
    def name(self) -> str:
        """``m = 8 1F1B``."""
        return f"m = {self.micro_batches} {self.schedule_words}"

    @property
    def sequences(self) -> int:
        """The real ones of a step."""
        return self.micro_batches * self.micro_batch_size - self.padding

    @property
    def rate(self) -> float:
        """The estimated sequences per second. Reports of older versions have no estimate: there the median of the
        measured steps, or the last prediction, stands for it."""
        return (self.estimate or self.measurement or self.last_prediction or self.prediction).throughput_seq_s

    @property
    def source(self) -> Source:
        """The origin of the rate: real steps of this candidate, or prediction alone."""
        return "measured" if self.measurement else "predicted"

    @property
    def may_win(self) -> bool:
        """True where nothing rules the candidate out under the limits in force."""
        is_out = self.failure is not None or self.excluded is not None or self.over_limit_bytes is not None
        return not is_out and (self.measurement is not None or self.prediction.fits is not False)

    @property
    def peak(self) -> int | None:
        """Bytes of the fullest rank: measured, or predicted; None where neither is known."""
        peaks = (self.measurement.peak_memory_bytes if self.measurement else None) or self.prediction.peak_memory_bytes
        return max(peaks) if peaks else None


class Neighbour(Record):
    """A candidate on the curve of throughput over m; ``loss``: share of the curve's best throughput."""

    candidate: NonNegativeInt
    micro_batches: PositiveInt
    loss: float
    source: Source


class KneeReport(Record):
    """The smallest m within 1 % of the best under the winner's schedule (``at``), and one step to either side."""

    at: Neighbour
    fewer: Neighbour | None
    more: Neighbour | None


class ParetoPoint(Record):
    """A candidate that no other beats both in throughput and in peak memory."""

    candidate: NonNegativeInt
    throughput_seq_s: float
    peak_memory_bytes: NonNegativeInt
    source: Source


class SweetSpot(Record):
    """The recommendation. ``candidate``, ``undecided_with`` and ``baseline`` are indices into ``candidates``.

    ``certainty``: the probability that it is the right choice; ``undecided_with``: those that might be it instead,
    where the certainty is low. ``speedup_over_naive`` is against ``baseline``: m = 1 or, where that does not fit or did
    not run, the smallest m that did. ``ties`` says in words who is as fast, and what the choice saves.
    """

    candidate: NonNegativeInt
    certainty: NonNegativeFloat | None = None
    undecided_with: tuple[NonNegativeInt, ...] = ()
    baseline: NonNegativeInt | None = None
    micro_batches: PositiveInt
    micro_batch_size: PositiveInt
    schedule: ScheduleName
    virtual_stages: PositiveInt
    throughput_seq_s: float
    speedup_over_naive: float | None
    memory_headroom_bytes: tuple[int, ...] | None
    reason: str
    confirmed: bool = True
    knee: KneeReport | None = None
    ties: tuple[str, ...] = ()


class Drift(Record):
    """How steady the machine was. ``checks``: how often the reference was visited again during the trials; ``ratio``:
    the slowest pace found over the fastest; ``profile_ratio``: real steps over predicted ones, median of all."""

    checks: NonNegativeInt
    ratio: PositiveFloat
    profile_ratio: PositiveFloat | None


class PeakSlope(Record):
    """What each further micro-batch adds to the peak of ``rank`` under 1F1B beyond what the memory model knows: 0 where
    a rank lets go of every micro-batch after its backward. Of all ranks the one where it matters most.

    ``bytes_per_micro_batch``: of one of ``micro_batch_size`` sequences, the size at the last of the ``micro_batches``
    that were compared. ``share_of_peak``: what it comes to from the first of these to the last.
    """

    rank: NonNegativeInt
    micro_batches: tuple[PositiveInt, ...] = Field(min_length=2)
    micro_batch_size: PositiveInt
    bytes_per_micro_batch: float
    share_of_peak: float


class Soundness(Record):
    """Whether real steps computed the same under every candidate, and let go of what they held.

    Of ``compared`` pairs of candidates that saw the same batch, the largest relative differences of the first step's
    loss and gradient norm; up to ``tolerance`` they are rounding. ``not_compared``: why candidates were left out.
    ``growth_bytes``: the most that any candidate left behind on any rank in each of its timed steps. ``findings``: what
    is wrong, in words. None where it could not be told.
    """

    compared: NonNegativeInt = 0
    loss_difference: NonNegativeFloat | None = None
    gradient_difference: NonNegativeFloat | None = None
    tolerance: PositiveFloat | None = None
    not_compared: str | None = None
    growth_bytes: int | None = None
    peak_slope: PeakSlope | None = None
    findings: tuple[str, ...] = ()


class RecordedStep(Record):
    """A real step of ``candidate``, action by action; of a few that were recorded the one of median length.

    ``starts_s[rank]``, ``ends_s[rank]``: in the order of the rank's actions, as ``autotune timeline
    REPORT --format json`` lists them, from the moment at which the first rank began the step.
    """

    candidate: NonNegativeInt
    step_time_s: PositiveFloat
    starts_s: tuple[tuple[float, ...], ...]
    ends_s: tuple[tuple[float, ...], ...]


class SearchReport(Record):
    """What the search cost and how sure it is. ``trials`` and ``real_steps`` are of this run; ``earlier_trials`` were
    taken over. Of the wall time of the run the ranks spent ``profiling_s`` measuring stages and links, and ``steps_s``
    in real steps; ``device_s`` is both together, times the ranks, and ``exhaustive_device_s`` what it would have been
    with every candidate confirmed.

    ``stop``: why it ended, which ``stopped_because`` says in words. ``confidence`` and ``final`` are of older versions:
    the certainty of the sweet spot, and how turns between close candidates ended. ``pareto_front``: the leanest first.
    ``controller``: whose report this is, where several controllers share the study; ``earlier_trials`` are then those
    of the others.
    """

    sampler: str
    controller: str | None = None
    trials: NonNegativeInt
    earlier_trials: NonNegativeInt = 0
    real_steps: NonNegativeInt
    profiling_s: NonNegativeFloat = 0.0
    steps_s: NonNegativeFloat = 0.0
    device_s: NonNegativeFloat | None = None
    exhaustive_device_s: NonNegativeFloat | None = None
    wall_s: float
    stopped_because: str
    stop: Stop | None = None
    objective: Objective = "throughput"
    tolerance: PositiveFloat | None = None
    confidence: NonNegativeFloat | None = None
    final: str | None = None
    drift: Drift | None = None
    pareto_front: tuple[ParetoPoint, ...] = ()


class Report(Record):
    """Everything one run found out. ``profile_from_earlier_run``: no stage was measured in this run.

    ``fingerprint``: 16 hexadecimal digits, alike in reports whose figures may be compared (``report.fingerprint``).
    ``virtual_profiles``: of further numbers of stages per rank, where candidates have several.
    """

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    kind: Literal["autotune.report"] = "autotune.report"
    created: str
    autotune_version: str
    command: str | None = None
    status: Literal["complete", "partial", "infeasible"]
    fingerprint: str | None = None
    environment: Environment
    workload: WorkloadFacts
    memory_limit_bytes: PositiveInt | None = None
    warnings: tuple[str, ...] = ()
    profile: Profile
    virtual_profiles: tuple[Profile, ...] = ()
    profile_from_earlier_run: bool = False
    candidates: tuple[CandidateReport, ...] = Field(min_length=1)
    sweet_spot: SweetSpot | None = None
    soundness: Soundness | None = None
    recorded_step: RecordedStep | None = None
    search: SearchReport

    @model_validator(mode="after")
    def _indices_are_of_candidates(self) -> Self:
        spot, step = self.sweet_spot, self.recorded_step
        named = [point.candidate for point in self.search.pareto_front]
        named += [spot.candidate, *spot.undecided_with] if spot else []
        named += [spot.baseline] if spot and spot.baseline is not None else []
        named += [step.candidate] if step else []
        if spot and spot.knee:
            named += [side.candidate for side in (spot.knee.fewer, spot.knee.at, spot.knee.more) if side]
        if max(named, default=0) >= len(self.candidates):
            raise ValueError(f"candidate {max(named)} is named, and there are only 0 to {len(self.candidates) - 1}")
        return self


def relative_error(prediction: Prediction, measurement: Measurement) -> RelativeError:
    """How far the first prediction is from what was measured."""
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
