"""Live ranks as a backend, whatever they run: started, asked for steps, replaced when they fail, let go."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from autotune.backend.protocol import RecordedSteps
from autotune.config import Config
from autotune.errors import InputError, MemoryLimitError
from autotune.events import Events
from autotune.hosts import common_environment
from autotune.pipeline.control.commands import Prepare, StageFacts
from autotune.pipeline.control.measure import build, describe, measure_candidate, record_steps
from autotune.pipeline.control.ranks import RankFailure, Ranks
from autotune.pipeline.control.starting import not_started
from autotune.pipeline.control.survey import collect_environment
from autotune.pipeline.hosts.rendezvous import Rendezvous
from autotune.profile.measure import is_fault_of_model
from autotune.records.failure import Failure
from autotune.records.job.environment import Environment
from autotune.records.job.placement import Placement
from autotune.records.job.workload import AnyWorkload, WorkloadFacts
from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.prediction import Candidate
from autotune.report.units import show_bytes
from autotune.workload.partition import stage_ranks


def look_around(config: Config, rendezvous: Rendezvous | None, events: Events) -> Environment:
    """Return what ranks will find on this host, or what all hosts at the ``rendezvous`` have in common."""
    events.progress("looking at the devices")
    if rendezvous is not None:
        return common_environment(rendezvous)
    return Environment.model_validate(collect_environment(config.interpreter))


@dataclass
class LiveRanks:
    """Ranks that run ``workload``, on this host or on those that came to a rendezvous, which ends with ``hosts``.

    ``memory_limit``: bytes that predictions and candidates are held to.
    """

    environment: Environment
    workload: AnyWorkload
    facts: WorkloadFacts
    memory_limit: int | None
    live: Ranks
    hosts: ExitStack = field(default_factory=ExitStack)

    MAY_IDLE = False  # whether ranks may use no CPU for a whole step

    @property
    def training_command(self) -> None:
        """None: ranks are ours."""

    @property
    def prior_profile(self) -> None:
        """None: stages are timed."""

    @property
    def ranks(self) -> int:
        """Ranks of one pipeline."""
        return self.workload.stages

    @property
    def busy_s(self) -> float:
        """Seconds in which the ranks timed, measured or ran steps."""
        return self.live.busy_s

    def build(self, placement: Placement, events: Events) -> list[StageFacts]:
        """Start the ranks and build the stages, unless the weights alone are too large; raise DeviceError, InputError
        or MemoryLimitError."""

        def work() -> list[StageFacts]:
            if not self.live.alive:
                events.progress("starting the ranks")
                self.live.start()
            on_paper = [fact.static_bytes for fact in describe(self.live, self.workload, placement)]
            self.check_weights(on_paper, placement.virtual_stages)
            events.progress("building the stages")
            return build(self.live, self.workload, placement)

        try:
            return self.live.retry_lost_hosts(work)
        except RankFailure as error:
            if error.failure.kind == "out_of_memory":
                raise MemoryLimitError(
                    f"the stages cannot be built: {error.failure.message}; use more --stages, a smaller model or a"
                    " higher --memory-limit"
                ) from None
            if is_fault_of_model(error, self.workload):
                raise InputError(f"the stages cannot be built: {error.failure.message}") from None
            raise not_started(self.live.device, error.failure) from None

    def check_weights(self, static_bytes: Sequence[int], virtual_stages: int) -> None:
        """Raise MemoryLimitError where weights, gradients and optimizer state alone exceed the limit."""
        held = [0] * self.ranks
        for rank, size in zip(stage_ranks(self.ranks, virtual_stages, False), static_bytes, strict=True):
            held[rank] += size
        fullest = max(range(len(held)), key=lambda rank: held[rank])
        if self.memory_limit is not None and held[fullest] > self.memory_limit:
            raise MemoryLimitError(
                f"rank {fullest} needs {held[fullest]} bytes ({show_bytes(held[fullest])}) for weights,"
                f" gradients and optimizer state, over the limit of {self.memory_limit} bytes"
                f" ({show_bytes(self.memory_limit)}); use more --stages, a smaller model or a higher --memory-limit"
            )

    def plan(self, candidate: Candidate) -> Prepare:
        """Return what the ranks are asked to run."""
        return Prepare(**candidate.model_dump())

    def measure(
        self, candidate: Candidate, expected_step_s: float, steps: int, keep_going: KeepGoing
    ) -> Measurement | Failure:
        """Run the candidate; replace ranks that died in an earlier one first."""
        return measure_candidate(
            self.live,
            self.workload,
            self.plan(candidate),
            expected_step_s,
            steps,
            keep_going,
            self.facts.seq_len,
            self.MAY_IDLE,
        )

    def record(self, candidate: Candidate, expected_step_s: float, steps: int) -> RecordedSteps | Failure | None:
        """Record the candidate's steps on the ranks."""
        try:
            return record_steps(self.live, self.workload, self.plan(candidate), expected_step_s, steps, self.MAY_IDLE)
        except RankFailure as error:
            return error.failure

    def poll(self) -> None:
        """Hear workers of other hosts."""
        self.live.poll()

    def close(self) -> None:
        """End the ranks, and dismiss the workers of other hosts."""
        self.live.stop()
        self.hosts.close()
