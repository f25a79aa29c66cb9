"""One rank: a process that drives one device, obeys the controller, and exits when the controller is gone."""

import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autotune.pipeline.control import commands
from autotune.pipeline.control.activity import ActivityWriter
from autotune.pipeline.control.diagnose import activity_file, log_file, place
from autotune.pipeline.device.device import Device, open_device
from autotune.pipeline.hosts.wire import READY, Assignment, rank_name
from autotune.pipeline.rank.facts import stage_facts
from autotune.pipeline.rank.layers import measure_layers
from autotune.pipeline.rank.probe import StageProbe, exchanges, is_out_of_memory, optimizer_cost, round_trips
from autotune.pipeline.rank.process_group import Team, open_store, team_of, use_interface
from autotune.pipeline.rank.recording import Recording
from autotune.pipeline.rank.reduction import Reduced, bucket_bytes, reduced, reductions, settle_buckets
from autotune.pipeline.rank.replay_stage import WaitingWorkload
from autotune.pipeline.rank.trail import Trail
from autotune.pipeline.rank.trial import Held, Optimizer, Trial
from autotune.records.failure import Failure, FailureKind
from autotune.records.job.placement import Placement
from autotune.records.job.workload import AnyWorkload
from autotune.records.plain import decode, encode, read
from autotune.records.stage_costs import LayerProfile, StageMemory, StageTime
from autotune.schedule_spec import SCHEDULES
from autotune.workload.open import open_workload
from autotune.workload.optimizer import MasterWeights, build_optimizer, hold_gradients, static_bytes
from autotune.workload.partition import layers_of_stage, stage_ranks
from autotune.workload.protocol import Workload
from autotune.workload.recompute import recompute

Open = Callable[[AnyWorkload], Workload]
Ready = tuple[Workload, Held, Optimizer | None]
LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection timed out",
    "Connection refused",
    "No route to host",
    "Network is unreachable",
)
"""Messages of gloo about a neighbour that has gone, or the network to it."""
LATE: tuple[type[Exception], ...] = (getattr(torch, "AcceleratorError", dist.DistBackendError), dist.DistBackendError)
"""Errors that a device reports when the CPU has long gone on; torch before 2.8 has no name for its own."""
LET_GO_S = 0.05  # after which gloo's own threads no longer hold what they reduced, and nothing counts it
MOST_CHARACTERS = 300  # of an exception that a failure repeats


class RankProcess:
    """The state of one rank between commands: its device, its stages and optimizer, the candidate under trial."""

    def __init__(
        self,
        rank: int,
        team: Team,
        device: Device,
        activity: ActivityWriter,
        opener: Open = open_workload,
        host: str | None = None,
    ) -> None:
        self.name = rank_name(rank, host)
        self.rank, self.team, self.device = rank, team, device
        self.activity, self.opener = activity, opener
        self.record: AnyWorkload | None = None  # of the workload
        self.held: Held = {}
        self.reduced: Reduced = {}  # the same as replicas train them
        self.probes: dict[int, StageProbe] = {}  # one for each stage held
        self.optimizer: MasterWeights | None = None
        self.workload: Workload | None = None
        self.placement: Placement | None = None
        self.static_bytes = 0
        self.library_bytes = 0  # what the first products of a process leave behind: cuBLAS's workspaces
        self.trial: Trial | None = None

    def execute(self, command: commands.Command) -> object:
        """Execute one command and return its answer."""
        work: Callable[..., object] = getattr(self, command.kind)
        active = getattr(command, "active", None)
        if active is not None and self.rank not in active:
            return None
        self.activity.begin(command.kind)
        found = work(command)
        self.activity.end()
        return found

    def indices(self, placement: Placement) -> list[int]:
        """Return the stages that lie on this rank, ascending."""
        placed = stage_ranks(self.team.ranks, placement.virtual_stages, placement.v_shaped)
        return [index for index, place in enumerate(placed) if place == self.team.place]

    def layers(self, workload: Workload, placement: Placement) -> dict[int, range]:
        """Return the layers of each stage that lies on this rank, by the stage's index."""
        count, stages = workload.facts.layers or 0, self.team.ranks * placement.virtual_stages
        return {index: layers_of_stage(count, stages, index, placement.split) for index in self.indices(placement)}

    def open(self, record: AnyWorkload) -> Workload:
        """Return the workload that a record describes; the same one as long as the record is the same."""
        if self.workload is None or self.record != record:
            self.workload, self.record = self.opener(record), record
        return self.workload

    def describe(self, command: commands.Describe) -> list[commands.StageFacts]:
        workload = self.open(command.workload)
        found = []
        for layers in self.layers(workload, command.placement).values():
            stage = workload.build_stage(layers, torch.device("meta"))
            found.append(stage_facts(stage, workload, layers, static_bytes(stage, command.workload.optimizer)))
        return found

    def build(self, command: commands.Build) -> list[commands.StageFacts]:
        # What an earlier build made is freed before this one's bytes are counted.
        self.trial, self.held, self.reduced, self.probes, self.optimizer = None, {}, {}, {}, None
        self.workload, self.placement = self.open(command.workload), command.placement
        own_bytes = max(0, self.device.memory(self._build).end)
        self.library_bytes += max(0, self.device.memory(self._first_pass).end)
        if self.team.replicas > 1:
            for index, probe in self.probes.items():
                settle_buckets(self.reduced[index], probe.passes(probe.fewest))
            time.sleep(LET_GO_S)
        self.static_bytes = own_bytes + self.library_bytes
        weights = {index: sum(p.numel() for p in stage.parameters()) for index, stage in self.held.items()}
        shares = {index: count / (sum(weights.values()) or 1) for index, count in weights.items()}
        # What libraries keep is the same on every rank, so that stages which lie otherwise add up to it as well.
        library = self.library_bytes / len(self.held)
        facts = [
            stage_facts(stage, self.workload, self.probes[index].layers, round(own_bytes * shares[index] + library))
            for index, stage in self.held.items()
        ]
        return [
            replace(one, bucket_bytes=bucket_bytes(stage, self.team), reduces_in_backward=stage is not self.held[index])
            for one, (index, stage) in zip(facts, self.reduced.items(), strict=True)
        ]

    def _build(self) -> None:
        workload, placement = self._settled()
        for index, layers in self.layers(workload, placement).items():
            stage = self.held[index] = workload.build_stage(layers, self.device.torch_device)
            recompute(workload.layers_in(stage), placement.mode_of(index))
            self.probes[index] = StageProbe(stage, workload, layers, self.device)
        hold_gradients(self._stages())
        self.reduced = reduced(self.held, self.team)
        self.optimizer = build_optimizer(self._stages(), workload.facts.optimizer or "none")
        if self.optimizer is not None:
            self.optimizer.step()  # allocates the optimizer's state; zero gradients change no weight but by decay

    def _first_pass(self) -> None:
        for probe in self.probes.values():
            probe.first_pass()

    def _settled(self) -> tuple[Workload, Placement]:
        """The workload of the last build, and its placement."""
        assert self.workload is not None and self.placement is not None, "build comes first"
        return self.workload, self.placement

    def _stages(self) -> nn.ModuleList:
        return nn.ModuleList(self.held.values())

    def time_stages(self, command: commands.TimeStages) -> list[list[StageTime]]:
        return [probe.times(command) for index, probe in self.probes.items() if index in command.stages]

    def measure_memory(self, command: commands.MeasureMemory) -> list[list[StageMemory]]:
        return [probe.memory(command.micro_batch_sizes, command.split) for probe in self.probes.values()]

    def measure_layers(self, command: commands.MeasureLayers) -> list[LayerProfile]:
        workload, _ = self._settled()
        return measure_layers(workload, command, self.device)

    def time_optimizer(self, command: commands.TimeOptimizer) -> commands.OptimizerCost:
        return optimizer_cost(self._stages(), self.optimizer, self.device)

    def ping(self, command: commands.Ping) -> list[float]:
        return round_trips(command, self.rank, self.device)

    def exchange(self, command: commands.Exchange) -> list[float]:
        return exchanges(command, self.rank, self.device)

    def reduce(self, command: commands.Reduce) -> list[float]:
        return reductions(command, self.team, self.device)

    def prepare(self, command: commands.Prepare) -> commands.Primed:
        self.trial = None  # frees the last candidate's buffers before this one's are counted
        workload, held, optimizer = self._waiting(command) if command.replay else self._training(command)
        loss: float | None = None

        def prime() -> None:
            nonlocal loss
            self.trial = Trial(held, optimizer, workload, self.team, command, self.device, self.activity)
            loss = self.trial.step()

        peak = self.static_bytes + self.device.memory(prime).peak
        seen = self.device.footprint()
        primed = commands.Primed(
            reserved_bytes=seen.reserved if seen else None, outside_bytes=seen.outside if seen else None
        )
        if command.replay:
            return primed
        first: dict[str, Any] = {"peak_memory_bytes": peak, "held_bytes": self.device.held()}
        first |= {"gradient_square_sum": finite(gradient_square_sum(self._stages()), "gradient of the first step")}
        if loss is not None:
            first["loss"] = finite(loss, "loss of the first step")
        return replace(primed, **first)

    def _training(self, plan: commands.Prepare) -> Ready:
        """The model's own stages as they were built: the steps of earlier candidates have changed the weights."""
        workload, placement = self._settled()
        assert placement == plan.placement, "build comes first"
        for index, stage in self.held.items():
            workload.reset_stage(stage, self.probes[index].layers)
        if self.optimizer is not None:
            self.optimizer.restart()
        self.device.release()  # so that what is reserved is for this candidate
        in_backward = SCHEDULES[plan.schedule].backward == "fused"
        return workload, self.reduced if in_backward else self.held, self.optimizer

    def _waiting(self, plan: commands.Prepare) -> Ready:
        """Stages that wait in their place."""
        workload, device = WaitingWorkload(plan.replay, self.device), self.device.torch_device
        held = {i: workload.build_stage(layers, device) for i, layers in self.layers(workload, plan.placement).items()}
        return workload, dict(held), workload.optimizer(held)

    def step(self, command: commands.Step) -> commands.StepTimes:
        assert self.trial is not None, "prepare comes first"
        recording = self.activity.recording = Recording(self.device) if command.record else None
        retries = self.device.retries()
        self.device.barrier()
        start = time.monotonic()
        loss = self.trial.step()
        end = time.monotonic()
        self.activity.recording = None
        if loss is not None:
            finite(loss, "loss of a step")
        actions = recording.read() if recording is not None else ()
        return commands.StepTimes(
            start_s=start,
            end_s=end,
            loss=loss,
            held_bytes=self.device.held(),
            alloc_retries=self.device.retries() - retries,
            actions=actions,
        )


def gradient_square_sum(stages: nn.Module) -> float:
    """Sum the squares of gradients over all parameters; what stages of one rank share counts once. Optimizers leave
    gradients as they are.

    Row by row and then in double precision: a norm in fp32 over 16 million elements is off by 7e-4 on the CPU.
    """
    rows = [torch.linalg.vector_norm(p.grad, dim=-1) for p in stages.parameters() if p.grad is not None]
    return float(torch.stack([row.double().square().sum() for row in rows]).sum().item()) if rows else 0.0


def finite(value: float, what: str) -> float:
    """Return ``value``; raise where it is no number, because then nothing else that the candidate shows means
    anything."""
    if not math.isfinite(value):
        raise FloatingPointError(f"the {what} is {value}")
    return value


def classify(error: Exception) -> FailureKind:
    """Return which kind of failure an exception of the model, the allocator or a neighbour is."""
    chain: BaseException | None = error
    while chain is not None:
        if is_out_of_memory(chain):
            return "out_of_memory"
        if isinstance(chain, dist.DistBackendError | dist.DistNetworkError):
            return "crash"
        chain = chain.__cause__
    return "crash" if any(words in str(error) for words in LOST_PEER) else "model_error"


def answer(rank: RankProcess, message: bytes) -> commands.Reply:
    """Execute one command; whatever goes wrong becomes a Failure, with the traceback on stderr."""
    try:
        return commands.Reply(value=rank.execute(read(commands.Command, message)))
    except Exception as error:
        with suppress(OSError):  # no room for the log is no reason to die without an answer
            traceback.print_exc()
        return commands.Reply(failure=failure_of(error, rank))


def failure_of(error: Exception, rank: RankProcess) -> Failure:
    """Return what went wrong, on which stage, in which action; where memory ran out also by how much."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    kind, (action, ahead) = classify(error), rank.activity.now(isinstance(root, LATE))
    message = f"{place(rank.name, action, ahead)}: {type(root).__name__}: {shortened(str(root))}"
    short = rank.device.shortage(str(root)) if kind == "out_of_memory" else None
    return Failure(
        kind=kind,
        rank=rank.rank,
        message=message + (f" (short by at least {short} bytes)" if short else ""),
        stage=action.stage,
        action=str(action),
        short_bytes=short,
    )


def shortened(message: str) -> str:
    """Return the first sentences, on one line: torch's messages end in advice. The first is kept whole."""
    sentences = re.split(r"(?<=[.;!?])\s+", " ".join(message.split()))
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + len(sentence) >= MOST_CHARACTERS:
            break
        kept += f" {sentence}"
    return kept


def quieten(log: Path) -> None:
    """Ignore Ctrl-C, which is the controller's business; write stderr, torch's own messages included, to ``log``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(handle, stream)
    os.close(handle)


def serve(place: dict[str, Any], folder: str, connection: Connection, opener: Open = open_workload) -> None:
    """Live as a rank: join the others, then execute commands until the pipe closes. ``place``: the rank's Assignment in
    JSON."""
    assignment: Assignment = decode(Assignment, place)
    quieten(log_file(Path(folder), assignment.rank))
    activity = ActivityWriter(activity_file(Path(folder), assignment.rank))
    device = open_device(assignment.device, assignment.local_rank, assignment.local_ranks)
    use_interface(assignment.address)
    store = open_store(assignment, folder, connection)
    limit = timedelta(seconds=2 * commands.LONGEST_S)  # not torch's ten minutes: the controller knows how long to wait
    rank, ranks = assignment.rank, assignment.ranks
    dist.init_process_group(device.backend, timeout=limit, store=store, rank=rank, world_size=ranks)
    device.barrier()
    team = team_of(rank, ranks, assignment.replicas, limit)
    if assignment.address is not None:
        connection.send_bytes(READY)
    if assignment.memory_limit is not None:
        device.limit(assignment.memory_limit)
    if device.runs_behind:
        activity.trail = Trail(device)
    activity.end()
    process = RankProcess(rank, team, device, activity, opener, assignment.host)
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            break
        os.ftruncate(sys.stderr.fileno(), 0)  # so that its last lines are of this command, not old warnings
        connection.send_bytes(encode(answer(process, message)))
    os._exit(0)  # destroying the process group would wait for neighbours that may be gone
