"""A simulation as a backend: stages are known on paper, and steps take as long as predicted but for errors as large as
the model's own uncertainty. Nothing runs, and time is that of the steps which it says it ran."""

import random
from collections.abc import Mapping, Sequence

from autotune.backend.protocol import Backend, Paper, Profiled, ProfileNeeds
from autotune.events import Events
from autotune.predict.predict import predict, profile_for
from autotune.records.job.command import CommandFacts
from autotune.records.job.environment import Environment
from autotune.records.job.recompute import modes_of
from autotune.records.job.workload import AnyWorkload, WorkloadFacts
from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.prediction import Candidate, Prediction
from autotune.records.profile import Profile, profile_of


class Simulated:
    """The candidates of ``real`` on a machine of which its ``paper`` holds but for errors; single steps vary by
    ``noise``, a standard deviation of their logarithm. ``busy_s`` is its clock."""

    def __init__(self, real: Backend, paper: Paper, noise: float, seed: int = 0) -> None:
        self.real, self.paper, self.noise = real, paper, noise
        self.predictions: dict[Candidate, Prediction] = {}
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Become another such machine, that differs from the predictions in other ways."""
        self.random = random.Random(seed)
        self.common, self.overhead = self.random.gauss(0, 1), self.random.gauss(0, 1)
        self.placements: dict[object, float] = {}
        self.truths: dict[Candidate, float] = {}
        self.busy_s = 0.0

    @property
    def environment(self) -> Environment:
        """The machine that is simulated."""
        return self.real.environment

    @property
    def workload(self) -> AnyWorkload:
        """The training job that is simulated."""
        return self.real.workload

    @property
    def facts(self) -> WorkloadFacts:
        """The training job that is simulated, as reports state it."""
        return self.real.facts

    @property
    def depends_on(self) -> Mapping[str, str]:
        """What the simulated figures would depend on."""
        return self.real.depends_on

    @property
    def training_command(self) -> CommandFacts | None:
        """What is known of the user's own command."""
        return self.real.training_command

    @property
    def prior_profile(self) -> Profile | None:
        """What the user expects stages to cost."""
        return self.real.prior_profile

    @property
    def suffix(self) -> str:
        """The end of the names of profiles."""
        return self.real.suffix

    @property
    def ranks(self) -> int:
        """Number of simulated devices."""
        return self.real.ranks

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a rank may hold."""
        return self.real.memory_limit

    def candidates(self) -> tuple[list[Candidate], list[str]]:
        """Return the candidates of the real backend."""
        return self.real.candidates()

    def on_paper(self, needs: Sequence[ProfileNeeds]) -> Paper:
        """Return what is simulated."""
        return self.paper

    def profile(self, needs: ProfileNeeds, events: Events) -> Profiled:
        """Return what is known on paper."""
        modes = modes_of(needs.recompute, self.ranks * needs.virtual_stages)
        profile = profile_of(self.paper.profiles, needs.virtual_stages, modes)
        assert profile is not None, "a profile for each of the needs"
        return Profiled(profile)

    def prediction(self, candidate: Candidate) -> Prediction:
        """Return the prediction that steps of a candidate are drawn around."""
        if candidate not in self.predictions:
            self.predictions[candidate] = predict(
                profile_for(self.paper.profiles, candidate), candidate, self.memory_limit
            )
        return self.predictions[candidate]

    def measure(self, candidate: Candidate, expected_step_s: float, steps: int, keep_going: KeepGoing) -> Measurement:
        """Draw steps: errors that candidates share, the candidate's own, those of the moment and of each step."""
        unsure = self.prediction(candidate).uncertainty
        shared = unsure.placement * self.placements.setdefault(candidate.placement, self.random.gauss(0, 1))
        shared += unsure.common * self.common + unsure.overhead * self.overhead
        error = shared + unsure.own * self.random.gauss(0, 1)
        moment = self.random.lognormvariate(0.0, unsure.moment)
        truth = self.truths.setdefault(candidate, expected_step_s * max(0.5, 1 + error))
        self.busy_s += truth
        times: list[float] = []
        for number in range(steps):
            times.append(truth * moment * self.random.lognormvariate(0.0, self.noise))
            self.busy_s += times[-1]
            if not keep_going(number, times[-1]):
                break
        return Measurement.of(tuple(times), candidate.job_sequences, None)

    def record(self, candidate: Candidate, expected_step_s: float, steps: int) -> None:
        """Return None: there are no actions to be seen."""

    def poll(self) -> None:
        """Do nothing: nothing runs."""

    def close(self) -> None:
        """Let go of the real backend."""
        self.real.close()
