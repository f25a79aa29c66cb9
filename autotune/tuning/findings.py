"""What a run has found out so far, as a Report."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from autotune import __version__
from autotune.backend.protocol import Profiled, ProfileNeeds
from autotune.config import Config
from autotune.errors import UsageError
from autotune.identity import digest_of_report
from autotune.predict.balance import best_cut
from autotune.predict.predict import predict, profile_for
from autotune.predict.recut import measured_split
from autotune.records.exclusion import Exclusion, ExclusionReason
from autotune.records.job.split import show_split
from autotune.records.prediction import Candidate, Prediction, schedule_text
from autotune.records.profile import Profile
from autotune.records.report import CandidateReport, Report, candidate_report
from autotune.records.verdict import Estimate, ParetoPoint, SearchReport, Stop, StopReason
from autotune.report.correctness import checked
from autotune.report.recommend import loses_to, pareto_front, recommend, stop_text, under_limit
from autotune.search.goal import PRICE, TIE, Goal, exhaustive_seconds
from autotune.search.runner import Runner
from autotune.tuning.conclude import drift, estimates, pace, verdict
from autotune.tuning.job import Job
from autotune.tuning.learner import Learner

PRINTED = 0.02  # relative difference of losses that are printed, and whose data a launcher may order otherwise
COMMAND_PRICE = 1 / 5  # as PRICE: starting a command costs far more than the steps that are timed of it
LEAN_TOLERANCE = 0.05  # of throughput, where memory is the objective and no tolerance was given


def exclusions(job: Job, profiles: list[Profile], predictions: list[Prediction]) -> list[Exclusion | None]:
    """Return why each candidate is not tried, or None."""
    least = job.config.min_micro_batch_size
    batch_statistics = any(stage.batch_statistics for profile in profiles for stage in profile.stages)
    reasons: list[Exclusion | None] = []
    too_few = Exclusion(reason=ExclusionReason.BATCH_STATISTICS, least=least)
    for candidate, prediction in zip(job.candidates, predictions, strict=True):
        if prediction.fits is False and not job.config.explore_limit:
            reasons.append(Exclusion(reason=ExclusionReason.MEMORY))
        elif batch_statistics and candidate.micro_batch_size < least:
            reasons.append(too_few)
        else:
            reasons.append(None)
    if too_few in reasons:
        job.warn(
            f"the model normalises over the batch (BatchNorm): micro-batches of fewer than {least} samples are not"
            " tried; --min-micro-batch-size changes that"
        )
    return reasons


def profile_of(job: Job, needs: ProfileNeeds) -> Profiled:
    """Return what stages cost on this job's backend; raise UsageError where it cannot tell."""
    profiled = job.backend.profile(needs, job.events)
    if profiled is None:
        raise UsageError("a command's stages cannot be profiled; autotune run tunes it from whole steps")
    return profiled


def foresee(job: Job) -> "Findings":
    """Return what is known before any trial: the profiles, the predictions, and what is not tried."""
    limit, found = job.backend.memory_limit, [job.backend.profile(needs, job.events) for needs in job.needs]
    profiled = [one for one in found if one is not None]
    if len(profiled) < len(found):
        return unprofiled(job, limit)
    profiles = [one.profile for one in profiled]
    if job.config.balance:
        job.candidates += balanced(job, profiles)
    predictions = [predict(profile_for(profiles, one), one, limit) for one in job.candidates]
    is_earlier = all(one.is_earlier for one in profiled)
    return Findings(job, profiles, is_earlier, predictions, exclusions(job, profiles, predictions))


def unprofiled(job: Job, limit: int | None) -> "Findings":
    """Return what is known before any trial of stages that cannot be timed: shapes, and what the user expects."""
    told = job.backend.prior_profile
    expected = [predict(told, one, limit) for one in job.candidates] if told else None
    learner = Learner(job.backend.facts, job.candidates, limit, expected)
    nominal = learner.nominal()
    predictions = [prediction for _, prediction in nominal.pairs]
    excluded: list[Exclusion | None] = [None] * len(predictions)
    if told and expected:
        excluded = exclusions(job, [told], expected)
    return Findings(job, list(nominal.profiles), False, predictions, excluded, learner)


def balanced(job: Job, profiles: list[Profile]) -> list[Candidate]:
    """Return the candidates with the cut that is predicted to be quickest: of every schedule and mode one cut, that of
    its best m, for all its m."""
    ways: dict[object, list[Candidate]] = {}
    for one in job.candidates:
        ways.setdefault((one.virtual_stages, one.placement.v_shaped, one.recompute), []).append(one)
    found: list[Candidate] = []
    for several in ways.values():
        job.events.progress(f"looking for the best cut under {schedule_text(several[-1].schedule, 1)}")
        profile = profile_for(profiles, several[0])
        cuts = [(one, cut) for one in several if (cut := best_cut(profile, one, job.backend.memory_limit))]
        if not cuts:
            continue
        best, cut = max(cuts, key=lambda pair: pair[0].sequences / pair[1].step_s)
        if cut.split == measured_split(profile):
            job.warn(f"--balance: the layers are best cut as they are, {show_split(cut.split)}")
            continue
        if cut.bound_s < cut.step_s:
            sure = f"no cut is more than {cut.step_s / cut.bound_s - 1:.0%} quicker"
            job.warn(f"--balance: {best.label} is best cut {show_split(cut.split)} of those simulated; {sure}")
        found += [one.model_copy(update={"split": cut.split}) for one in several]
    return found


@dataclass
class Findings:
    """Everything a report is made of."""

    job: Job
    profiles: list[Profile]
    is_earlier_profile: bool
    predictions: list[Prediction]
    excluded: list[Exclusion | None]
    learner: Learner | None = None

    @property
    def present(self) -> Candidate | None:
        """The candidate that the user's command runs with now; None where that is not known, or cannot be tried."""
        now = self.job.backend.training_command
        return next((one for one in self.job.candidates if now and one.micro_batches == now.micro_batches), None)

    def learn_from(self, search: Runner) -> None:
        """Take profiles and predictions from what was measured, where nothing else tells them."""
        if self.learner is not None and search.state.measured:
            fitted = self.learner.fitted(search.state.outcomes)
            self.profiles = list(fitted.profiles)
            self.predictions = [prediction for _, prediction in fitted.pairs]

    def report(self, search: Runner | None, status: str, stop: Stop | None = None) -> Report:
        """Return the report as things stand. ``stop``: what ended the search, where that was not the search itself."""
        if search is not None:
            self.learn_from(search)
        found = verdict(search, stop) if search else None
        rows = self._candidates(search, found.pick if found else None)
        candidates, soundness = checked(
            rows,
            self.profiles[0],
            self.job.backend.facts.precision,
            PRINTED if self.learner else None,
            bool(self.job.backend.facts.draws_random_numbers),
        )
        return Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            autotune_version=__version__,
            command=self.job.command,
            status=status,  # type: ignore[arg-type]
            fingerprint=digest_of_report(self.job.backend.environment, self.job.backend.facts, __version__),
            environment=self.job.backend.environment,
            workload=self.job.backend.facts,
            peak_flops=self.job.config.peak_flops,
            memory_limit_bytes=self.job.backend.memory_limit,
            warnings=tuple(self.job.warnings),
            profile=self.profiles[0],
            virtual_profiles=tuple(self.profiles[1:]),
            profile_from_earlier_run=self.is_earlier_profile,
            candidates=candidates,
            recommended=found.pick if found else None,
            sweet_spot=recommend(candidates, found, self.job.backend.memory_limit, self._present) if found else None,
            training_command=self.job.backend.training_command,
            soundness=soundness,
            search=self._search(search, found.stop if found else stop, pareto_front(candidates)),
        )

    @property
    def _present(self) -> int | None:
        return self.job.candidates.index(self.present) if self.present else None

    def _search(self, search: Runner | None, stop: Stop | None, front: tuple[ParetoPoint, ...]) -> SearchReport:
        config = self.job.config
        stop = stop or Stop(reason=StopReason.RUNNING)
        goal = goal_of(config)
        if search is None:
            return SearchReport(
                sampler=config.sampler,
                trials=0,
                real_steps=0,
                profiling_s=self.job.profiling_s,
                wall_s=0.0,
                stopped_because=stop_text(stop),
                stop=stop,
                objective=goal.objective,
                tolerance=goal.tolerance,
            )
        return SearchReport(
            sampler=config.sampler,
            controller=search.study.controller or None,
            trials=search.state.trials,
            earlier_trials=search.state.earlier_trials,
            real_steps=search.state.real_steps,
            profiling_s=self.job.profiling_s,
            steps_s=self.job.backend.busy_s - self.job.profiling_s,
            device_s=self.job.backend.busy_s * self.job.devices,
            exhaustive_device_s=self._exhaustive_s(search) * self.job.devices,
            wall_s=search.elapsed_s,
            stopped_because=stop_text(stop),
            stop=stop,
            objective=goal.objective,
            tolerance=goal.tolerance,
            drift=drift(search),
            pareto_front=front,
        )

    def _exhaustive_s(self, search: Runner) -> float:
        """Seconds that ranks would have worked to confirm every candidate that fits."""
        known = estimates(search)
        steps_s = [known[candidate].step_time_s for candidate in search.state.allowed]
        starts_s = sum(map(search.preparation.expected_s, search.state.allowed)) if self.learner else 0.0
        return self.job.profiling_s + exhaustive_seconds(steps_s) + starts_s

    def _candidates(self, search: Runner | None, pick: int | None) -> list[CandidateReport]:
        """One row for each candidate; ``pick``: the one that the others are compared with."""
        limit = self.job.backend.memory_limit
        known = estimates(search) if search else {}
        rows = [under_limit(self._candidate(index, search, known), limit) for index in range(len(self.predictions))]
        if pick is None:
            return rows
        winner = rows[pick]
        return [row.model_copy(update={"loses_to": loses_to(row, winner)}) for row in rows]

    def _candidate(self, index: int, search: Runner | None, known: Mapping[Candidate, Estimate]) -> CandidateReport:
        candidate = self.job.candidates[index]
        outcome = search.state.outcomes.get(candidate) if search else None
        excluded = self.excluded[index] or (search.state.ruled_out.get(candidate) if search else None)
        row = candidate_report(candidate, self.predictions[index], outcome, excluded.text if excluded else None)
        if search is None:
            return row
        last = search.state.last_predictions.get(candidate)
        usual = pace(search, candidate) if row.measurement else None
        return row.model_copy(update={"last_prediction": last, "estimate": known.get(candidate), "pace": usual})


def goal_of(config: Config) -> Goal:
    """Return what the search is for."""
    usual = LEAN_TOLERANCE if config.objective == "memory" else TIE
    return Goal(config.objective, config.tolerance or usual, COMMAND_PRICE if config.command else PRICE)
