"""One rank: a process that drives one device, obeys the controller, and exits when the controller is gone."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from autotune.config import Workload
from autotune.pipeline import commands
from autotune.pipeline.device import Device, open_device
from autotune.pipeline.outcome import Failure, FailureKind
from autotune.pipeline.probe import StageProbe, optimizer_cost, round_trips
from autotune.pipeline.trial import EmptyStage, Trial
from autotune.workload.gpt import boundary_type, build_stage, has_batch_statistics
from autotune.workload.partition import layers_per_stage

JSON = TypeAdapter(object)


class Rank:
    """What one rank holds between commands: its device, its stage and optimizer, the candidate under trial."""

    def __init__(self, rank: int, ranks: int, device: Device) -> None:
        self.rank, self.ranks, self.device = rank, ranks, device
        self.stage: nn.Module = nn.Identity()
        self.optimizer: Optimizer | None = None
        self.workload: Workload | None = None
        self.static_bytes = 0
        self.trial: Trial | None = None

    def obey(self, command: commands.Command) -> object:
        """Carries out one command and returns its answer."""
        work: Callable[..., object] = getattr(self, command.kind)
        if self.rank not in getattr(command, "active", (self.rank,)):
            return None
        return work(command)

    def describe(self, command: commands.Describe) -> commands.StageFacts:
        workload = command.workload
        stage = build_stage(workload, self.rank, self.ranks, torch.device("meta"))
        weights = sum(p.numel() * p.element_size() for p in stage.parameters())
        constants = sum(b.numel() * b.element_size() for b in stage.buffers())
        copies = {"adamw": 4, "sgd": 2, "none": 2}[workload.optimizer]  # weights, gradients, AdamW's two moments
        return self._facts(stage, workload, weights * copies + constants)

    def build(self, command: commands.Build) -> commands.StageFacts:
        # What an earlier build made is freed before this one's bytes are counted.
        self.trial, self.stage, self.optimizer = None, nn.Identity(), None
        self.workload = command.workload
        self.static_bytes = self.device.memory(self._build).end
        return self._facts(self.stage, command.workload, self.static_bytes)

    def _build(self) -> None:
        assert self.workload is not None
        self.stage = build_stage(self.workload, self.rank, self.ranks, self.device.torch_device)
        self.optimizer = build_optimizer(self.stage, self.workload.optimizer)
        for parameter in self.stage.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if self.optimizer is not None:
            self.optimizer.step()  # allocates the optimizer's state; zero gradients change no weight but by decay

    def _facts(self, stage: nn.Module, workload: Workload, static_bytes: int) -> commands.StageFacts:
        return commands.StageFacts(
            layers=layers_per_stage(workload.layers, self.ranks)[self.rank],
            parameters=sum(p.numel() for p in stage.parameters()),
            static_bytes=max(0, static_bytes),
            batch_statistics=has_batch_statistics(stage),
        )

    def _probe(self) -> StageProbe:
        assert self.workload is not None, "build comes first"
        return StageProbe(self.stage, self.workload, self.rank, self.device)

    def time_stage(self, command: commands.TimeStage) -> list[commands.StageTime]:
        return self._probe().times(command.micro_batch_sizes, command.budget_s)

    def measure_memory(self, command: commands.MeasureMemory) -> list[commands.StageMemory]:
        return self._probe().memory(command.micro_batch_sizes)

    def time_optimizer(self, command: commands.TimeOptimizer) -> commands.OptimizerCost:
        return optimizer_cost(self.stage, self.optimizer, self.device)

    def contend(self, command: commands.Contend) -> float:
        return self._probe().seconds_per_pass(command.micro_batch_size, command.seconds)

    def ping(self, command: commands.Ping) -> list[float]:
        return round_trips(command, self.rank, self.device)

    def prepare(self, command: commands.Prepare) -> commands.Primed:
        assert self.workload is not None, "build comes first"
        workload, stage, optimizer = self.workload, self.stage, self.optimizer
        self.trial = None  # frees the last candidate's buffers before this one's are counted
        if command.empty:
            hidden, element_type = workload.hidden, boundary_type(workload)
            stage, optimizer = (EmptyStage(self.rank == 0, hidden, element_type, self.device.torch_device), None)

        def prime() -> None:
            self.trial = Trial(stage, optimizer, workload, command, self.rank, self.device)
            self.trial.step()

        return commands.Primed(peak_memory_bytes=self.static_bytes + self.device.memory(prime).peak)

    def step(self, command: commands.Step) -> commands.StepTimes:
        assert self.trial is not None, "prepare comes first"
        dist.barrier()
        start, cpu = time.monotonic(), time.process_time()
        loss = self.trial.step()
        return commands.StepTimes(start_s=start, end_s=time.monotonic(), cpu_s=time.process_time() - cpu, loss=loss)


def build_optimizer(stage: nn.Module, name: str) -> Optimizer | None:
    """The optimizer of a workload over ``stage``'s parameters; None for "none"."""
    if name == "none":
        return None
    return AdamW(stage.parameters(), lr=1e-4) if name == "adamw" else SGD(stage.parameters(), lr=1e-3)


def classify(error: Exception) -> FailureKind:
    """Which kind of failure an exception of the model, the allocator or a neighbour is."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(chain):
            return "out_of_memory"
        if isinstance(chain, dist.DistBackendError | dist.DistNetworkError):
            return "crash"
        chain = chain.__cause__
    lost_peer = "Connection closed by peer" in str(error) or "Connection reset by peer" in str(error)
    return "crash" if lost_peer else "model_error"


def answer(rank: Rank, message: bytes) -> commands.Reply:
    """Obeys one command; whatever goes wrong becomes a Failure, with the traceback on stderr."""
    try:
        return commands.Reply(value=rank.obey(commands.COMMAND.validate_json(message)))
    except Exception as error:
        traceback.print_exc()
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        words = " ".join(str(root).split())[:500]
        failure = Failure(kind=classify(error), rank=rank.rank, message=f"{type(root).__name__}: {words}")
        return commands.Reply(failure=failure)


def exit_with_controller() -> None:
    """Ends this process when the controller has gone, even while a collective waits for a dead neighbour."""
    controller = parent_process()
    assert controller is not None

    def watch() -> None:
        controller.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch controller").start()


def quieten(log: Path) -> None:
    """Ctrl-C is the controller's business; stderr, torch's own chatter included, goes to ``log``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(handle, stream)
    os.close(handle)


def serve(rank: int, ranks: int, kind: str, folder: str, connection: Connection) -> None:
    """The life of a rank: joins the others over a file store in ``folder``, then obeys until the pipe closes."""
    quieten(Path(folder, f"rank{rank}.log"))
    exit_with_controller()
    # Nothing may listen on any other interface than loopback.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    device = open_device(kind, rank, ranks)
    dist.init_process_group(
        device.backend,
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=ranks,
        # NCCL must know the device before the first collective; gloo takes none.
        device_id=device.torch_device if device.kind == "cuda" else None,
    )
    me = Rank(rank, ranks, device)
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            break
        connection.send_bytes(JSON.dump_json(answer(me, message)))
    os._exit(0)  # destroying the process group would wait for neighbours that may be gone
