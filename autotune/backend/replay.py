"""Replaying a recorded profile: real ranks and messages here, each stage's compute replaced by waiting as long."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from autotune.backend.live import LiveRanks, look_around
from autotune.backend.protocol import Paper, Profiled, ProfileNeeds
from autotune.config import Config, load_config
from autotune.errors import UsageError
from autotune.events import Events
from autotune.hosts import rendezvous_of
from autotune.identity import digest_of_times
from autotune.pipeline.control.commands import Prepare, ReplayStage
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.calibrate import calibrated
from autotune.predict.sweep import profile_candidates
from autotune.profile.measure import Measurer, Warn, waiting
from autotune.records.job.environment import Environment
from autotune.records.job.placement import Placement
from autotune.records.job.recompute import RecomputeChoice
from autotune.records.job.workload import WorkloadConfig
from autotune.records.prediction import Candidate
from autotune.records.profile import ROUNDS, Calibration, Profile, StageProfile, read_profile
from autotune.records.stage_costs import StageTime
from autotune.torch_range import check_torch, runnable_by


@dataclass
class Replay(LiveRanks):
    """Ranks that wait as long as those of the ``recorded`` profile computed. ``config``: with what the profile
    settles."""

    config: Config = field(kw_only=True)
    recorded: Profile = field(kw_only=True)

    MAY_IDLE = True

    @property
    def depends_on(self) -> Mapping[str, str]:
        """The recorded profile."""
        mark = digest_of_times(self.workload, self.recorded.environment, self.recorded.model_dump_json())
        return {"recorded_profile": mark}

    @property
    def suffix(self) -> str:
        """The end of the names of profiles, because the recording may itself be called profile.json."""
        return "-replay"

    def candidates(self) -> tuple[list[Candidate], list[str]]:
        """Return every candidate of the config that runs on the recorded stages."""
        config = self.config.model_copy(update={"micro_batches": self.config.all_counts()})
        candidates, notes = profile_candidates(self.recorded, config, self.workload.batch)
        left, lacking = runnable_by(self.environment.torch_version, candidates, self.ranks)
        return left, notes + lacking

    def on_paper(self, needs: Sequence[ProfileNeeds]) -> Paper:
        """Return the recorded profile."""
        return Paper([self.recorded] * len(needs), "recorded profile")

    def profile(self, needs: ProfileNeeds, events: Events) -> Profiled:
        """Return the recorded profile with links and overhead measured on the ranks that will replay it."""
        self.build(Placement(virtual_stages=self.recorded.virtual_stages), events)
        events.progress("measuring links and the runtime's own cost")
        return Profiled(
            calibrated(replayed_profile(self.recorded, self.live, self.environment, needs.sizes, events.warn))
        )

    def plan(self, candidate: Candidate) -> Prepare:
        """Return what the ranks are asked to run: stages that wait."""
        return Prepare(
            **candidate.model_dump() | {"recompute": None},
            replay=replay_stages(self.recorded, candidate.micro_batch_size),
        )


def open_replay(config: Config, events: Events) -> Replay:
    """Read the profile, and look at the machine where it will be replayed; start no rank yet."""
    assert config.profile is not None, "a config of this device has a profile"
    recorded = read_profile(config.profile)
    with ExitStack() as hosts:
        rendezvous = hosts.enter_context(rendezvous_of(config, recorded.ranks, events))
        here = look_around(config, rendezvous, events)
        check_torch(here.torch_version, "fp32")
        there = recorded.environment
        environment = here.with_gpus(()).model_copy(
            update={
                "device": replayed_device(there),
                "memory_bytes": there.memory_bytes,
                "unseen_gpu": None,
                "mps": None,
            }
        )
        if "stages" in config.model_fields_set and config.stages != recorded.ranks:
            raise UsageError(f"--stages: the profile has {recorded.ranks} (given: {config.stages})")
        if "data_parallel" in config.model_fields_set or recorded.workload.replicas > 1:
            raise UsageError(
                f"--device replay: one pipeline is replayed, without replicas (given: {config.data_parallel}, recorded:"
                f" {recorded.workload.replicas}); leave --data-parallel out, and record a profile without it"
            )
        if config.split is not None:
            raise UsageError("--split: the stages of a recorded profile are cut already; leave it out")
        if config.balance:
            raise UsageError("--balance: the stages of a recorded profile are cut already; leave it out")
        if config.recompute is not RecomputeChoice.NONE:
            raise UsageError("--recompute: a recorded profile says what its stages recompute; leave it out")
        batch = config.batch if "batch" in config.model_fields_set else recorded.workload.batch or config.batch
        settled = load_config(None, config.model_dump(exclude_unset=True) | {"batch": batch})
        facts = replace(recorded.workload, stages=recorded.ranks, batch=batch)
        sharing = there.most_on_a_host(recorded.ranks) if there.device == "cpu" else 1
        limit = config.memory_limit or (there.memory_bytes or 0) // sharing or None
        workload, live = (
            replay_workload(recorded, batch),
            Ranks(recorded.ranks, "cpu", rendezvous=rendezvous, python=config.interpreter),
        )
        return Replay(environment, workload, facts, limit, live, hosts.pop_all(), config=settled, recorded=recorded)


def replayed_device(recorded: Environment) -> str:
    """Return ``replay of cuda (NVIDIA A100)``: what stands wherever a reader could take the figures for the device's
    own."""
    names = sorted(set(recorded.devices))
    return f"replay of {recorded.device or 'a hand-written profile'}" + (f" ({', '.join(names)})" if names else "")


def replay_workload(profile: Profile, batch: int) -> WorkloadConfig:
    """Return what the ranks are told to build: a model of no size, because the stages only wait."""
    return WorkloadConfig(
        layers=len(profile.stages),
        stages=profile.ranks,
        hidden=1,
        heads=1,
        seq_len=1,
        vocab=2,
        batch=batch,
        precision="fp32",
        optimizer="none",
    )


def as_waited(stage: StageProfile) -> StageProfile:
    """Return the stage as one that waits instead of computing: its fused backward is the sum of the halves where both
    are known, and it starts no kernels."""

    def row(times: StageTime) -> StageTime:
        return replace(times, host_s=None, t_bw=None if times.t_b is not None else times.t_bw)

    return stage.model_copy(update={"time_s": tuple(map(row, stage.time_s))})


def replayed_profile(
    recorded: Profile, ranks: Ranks, environment: Environment, sizes: tuple[int, ...], warn: Warn
) -> Profile:
    """Return the recorded stage times, with the links and the runtime's cost as they are here, where the ranks really
    run."""
    placement = Placement(virtual_stages=recorded.virtual_stages)
    measurer = Measurer(ranks, replay_workload(recorded, recorded.ranks), placement, sizes, False, warn, output_bytes=0)
    messages = [recorded.message_size(size) for size in sizes]
    links = measurer.retry_once(lambda: measurer.links(messages))
    wait = waiting(messages[0])
    runs = [
        measurer.retry_once(lambda: measurer.calibration(sizes[0], 2 * recorded.ranks, wait)) for _ in range(ROUNDS)
    ]
    return recorded.model_copy(
        update={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment,
            "stages": tuple(as_waited(stage) for stage in recorded.stages),
            "links": tuple(links),
            "shared": None,
            "drift": 0.0,
            "calibrations": (Calibration.merged(runs),),
            "step_overhead_s": 0.0,
            "host_action_s": measurer.retry_once(measurer.host_action),
        }
    )


def replay_stages(profile: Profile, micro_batch_size: int) -> tuple[ReplayStage, ...]:
    """Return how long each stage waits for a micro-batch of this size, and what it sends."""

    def row(stage: StageProfile) -> ReplayStage:
        def seconds(name: str) -> float:
            return stage.seconds(micro_batch_size, lambda times: float(getattr(times, name)))

        return ReplayStage(
            t_f=seconds("t_f"),
            t_b=seconds("input_gradient"),
            t_w=seconds("weight_gradient"),
            optimizer_s=stage.optimizer_s,
            message_bytes=profile.message_size(micro_batch_size),
        )

    return tuple(row(stage) for stage in profile.stages)
