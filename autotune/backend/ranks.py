"""Ranks that really compute, as a backend: the model's own stages, on the CPUs or GPUs of one host or of several."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotune.backend.live import LiveRanks, look_around
from autotune.backend.protocol import Paper, Profiled, ProfileNeeds
from autotune.config import Config
from autotune.errors import DeviceError, InputError, UsageError
from autotune.events import Events
from autotune.hosts import rendezvous_of
from autotune.pipeline.control.ranks import Ranks
from autotune.pipeline.control.survey import look_at_model, matrix_rate
from autotune.predict.calibrate import calibrated
from autotune.predict.predict import candidates_for
from autotune.profile.analytic import assumed_profile
from autotune.profile.cache import cached_profile, keep_profile, profile_path
from autotune.profile.measure import measure_profile
from autotune.records.job.environment import Environment
from autotune.records.job.placement import Placement
from autotune.records.job.recompute import modes_of
from autotune.records.job.workload import AnyWorkload
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile
from autotune.report.units import show_bytes
from autotune.torch_range import check_torch, runnable_by


@dataclass
class TorchRanks(LiveRanks):
    """Ranks that compute what ``config`` asks for. ``notes``: what the user should know of it."""

    config: Config = field(kw_only=True)
    notes: list[str] = field(default_factory=list, kw_only=True)

    @property
    def depends_on(self) -> Mapping[str, str]:
        """Nothing: workload and environment say it all."""
        return {}

    @property
    def suffix(self) -> str:
        """The end of the names of profiles: none."""
        return ""

    def candidates(self) -> tuple[list[Candidate], list[str]]:
        """Return every candidate of the config that the model has layers for."""
        counts, padded = self.config.all_counts(), list[str]()
        if self.config.model is not None and not self.config.micro_batch_size:
            counts, padded = without_padding(counts, self.workload.batch)
        found, left_out = candidates_for(
            counts,
            self.config.schedule,
            self.config.virtual_stages,
            self.workload.stages,
            self.workload.layers,
            self.workload.batch,
            self.config.micro_batch_size,
            self.config.split,
            self.config.recompute.modes,
            self.workload.replicas,
        )
        left, lacking = runnable_by(self.environment.torch_version, found, self.ranks)
        return left, self.notes + padded + left_out + lacking

    def on_paper(self, needs: Sequence[ProfileNeeds]) -> Paper:
        """Return the profiles kept from an earlier run, or what stages would cost by their arithmetic."""
        kept = [self.kept(need._replace(is_split=False)) for need in needs]
        if all(kept):
            return Paper([profile for profile in kept if profile], "profile of an earlier run")
        rate = matrix_rate(self.live.device, self.live.ranks, self.workload.precision or "fp32", self.live.python)
        assumed = [
            assumed_profile(
                self.workload,
                need.virtual_stages,
                need.sizes,
                rate,
                self.environment,
                self.config.split,
                need.recompute,
            )
            for need in needs
        ]
        return Paper(assumed, "arithmetic")

    def kept(self, needs: ProfileNeeds) -> Profile | None:
        """Return the profile of an earlier run, where there is one and it may be used."""
        if self.config.fresh:
            return None
        return cached_profile(self.path(needs), needs.sizes, needs.is_split, self.config.balance)

    def path(self, needs: ProfileNeeds) -> Path:
        """Return where the profile is kept."""
        v, split = needs.virtual_stages, self.config.split
        mode = needs.recompute
        return profile_path(self.config.state_dir, self.workload, self.environment, v, split, mode)

    def profile(self, needs: ProfileNeeds, events: Events) -> Profiled:
        """Return the profile kept from an earlier run, or a new one measured on the ranks."""
        if kept := self.kept(needs):
            self.check_weights([stage.static_bytes for stage in kept.stages], needs.virtual_stages)
            return Profiled(kept, is_earlier=True)
        modes = modes_of(needs.recompute, self.ranks * needs.virtual_stages)
        placement = Placement(virtual_stages=needs.virtual_stages, split=self.config.split, recompute=modes)
        facts = self.build(placement, events)
        profile = calibrated(
            measure_profile(
                self.live,
                self.workload,
                placement,
                facts,
                needs.sizes,
                self.environment,
                needs.is_split,
                events.progress,
                events.warn,
                self.config.balance,
            )
        )
        keep_profile(self.path(needs), profile)
        return Profiled(profile)


def open_ranks(config: Config, events: Events) -> TorchRanks:
    """Look at the machine, or at the hosts that come to the rendezvous, and settle sizes and limits; start no rank
    yet."""
    with ExitStack() as hosts:
        rendezvous = hosts.enter_context(rendezvous_of(config, config.stages * config.data_parallel, events))
        environment = choose_device(config, look_around(config, rendezvous, events))
        kind = environment.device or "cpu"
        workload = workload_of(config, kind, events)
        check_torch(environment.torch_version, workload.precision or "fp32")
        ranks = workload.stages * workload.replicas
        sharing = environment.most_on_a_host(ranks) if kind == "cpu" else 1
        limit, capped = memory_limit(config, environment, sharing)
        live = Ranks(
            ranks,
            kind,
            memory_limit=limit,
            rendezvous=rendezvous,
            python=config.interpreter,
            replicas=workload.replicas,
        )
        return TorchRanks(
            environment, workload, workload.facts, limit, live, hosts.pop_all(), config=config, notes=capped
        )


def workload_of(config: Config, device: str, events: Events) -> AnyWorkload:
    """Return what the ranks are to train; a model of the user's is looked at first. Raise InputError where it cannot be
    trained, or has too few layers."""
    if config.model is None:
        return config.workload(device)
    events.progress("looking at the model", None)
    found = look_at_model(config.model_request(device), config.interpreter)
    if found.layers < config.stages:
        raise InputError(
            f"--model {found.model} has {found.layers} layers that it can be cut between, fewer than {config.stages}"
            " stages; lower --stages"
        )
    for name in ("split", "balance"):
        if found.cuts_itself and getattr(config, name):
            raise UsageError(
                f"--{name}: {found.model} is a function of (stage, stages), which cuts the model itself; leave --{name}"
                " out, or give a function that returns the whole model"
            )
    return replace(found, data_parallel=config.data_parallel) if config.data_parallel > 1 else found


def without_padding(counts: tuple[int, ...], batch: int) -> tuple[tuple[int, ...], list[str]]:
    """Return the numbers of micro-batches that divide the batch, and what to say of the others: nobody knows which
    rows a loss of the user's would leave out."""
    whole = tuple(count for count in counts if batch % count == 0)
    odd = [str(count) for count in counts if batch % count]
    reason = f"the batch of {batch} does not divide into them, and a model of yours is never given padding"
    return whole, [f"not tried: m = {', '.join(odd)}: {reason}"] if odd else []


def choose_device(config: Config, environment: Environment) -> Environment:
    """Return the environment with the device that will be used; raise DeviceError where it is not here."""
    if config.device != "cpu" and environment.unseen_gpu:
        raise DeviceError(f"torch does not see the GPU of this host: {environment.unseen_gpu}; or give --device cpu")
    environment = environment.model_copy(update={"unseen_gpu": None})
    if config.device == "cuda" and environment.device != "cuda":
        raise DeviceError("--device cuda: torch sees no GPU here; use --device cpu, or see autotune doctor")
    if config.device == "cpu" and environment.device == "cuda":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        cpu = {"device": "cpu", "memory_bytes": memory, "mps": None}
        return environment.with_gpus(()).model_copy(update=cpu)
    ranks, there = config.stages * config.data_parallel, len(environment.devices)
    if environment.device == "cuda" and there < ranks:
        several = config.data_parallel > 1
        need = f"{config.stages} stages{f' x {config.data_parallel} replicas' if several else ''} need {ranks} GPUs"
        fewer = "fewer --stages or a lower --data-parallel" if several else f"--stages {there}"
        raise DeviceError(f"{need}, but only {there} are visible; use {fewer}, or --device cpu")
    if environment.device == "cuda":
        return environment.with_gpus(range(ranks))  # rank r drives GPU r; a rendezvous has chosen already
    return environment


def memory_limit(config: Config, environment: Environment, sharing: int) -> tuple[int | None, list[str]]:
    """Return how many bytes of its device a rank may hold, with all that others hold there, and what to say of it.

    Never more than the device has. ``sharing``: ranks that share it, and have equal parts unless the config says more.
    """
    there, wanted = environment.memory_bytes, config.memory_limit
    if there is None or (wanted is not None and wanted <= there):
        return wanted, []
    if wanted is None:
        return there // sharing, []
    least = f"{show_bytes(there)} ({there} bytes)"
    return there, [f"--memory-limit: {show_bytes(wanted)} are more than the smallest device has; the limit is {least}"]
