"""Models that are wrong on purpose, each in one way, and ranks that train them: what the checks must catch.

And ranks that die, hang or fail at a given place.
"""

import ctypes
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from autotune.pipeline.control.process import Run
from autotune.workload.gpt import IGNORED, Gpt, SequenceLoss


class SummedMeans(SequenceLoss):
    """The mean of each micro-batch, and nobody divides by their number: a sum where a mean is meant."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


class PaddingCounts(SequenceLoss):
    """Padding rows are not masked: they are taken to be followed by token 0."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(logits, targets.clamp(min=0))


class FullWeights(SequenceLoss):
    """Padding is masked, but a micro-batch that is half padding weighs as much as a full one."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        mean = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        return mean * targets.numel() / self.tokens


class Hoarder(nn.Sequential):
    """Keeps the output of every micro-batch, for good."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.__dict__.setdefault("kept", []).append(out.detach())
        return out


class LateHoarder(Hoarder):
    """Keeps the output of every micro-batch until the next step begins, and a copy of it: more than peaks vary by."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.kept.append(out.detach().clone())
        return out

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.__dict__.pop("kept", None)
        super().zero_grad(set_to_none)


@dataclass(frozen=True)
class WrongGpt(Gpt):
    """The built-in GPT with another loss, or with stages of another class."""

    loss_class: type[SequenceLoss] = SequenceLoss
    stage_class: type[nn.Sequential] = nn.Sequential

    def build_stage(self, layers, device):
        return self.stage_class(*super().build_stage(layers, device).children())

    def loss(self, sequences):
        return self.loss_class(self.sizes, sequences)


MODELS = {
    "right": Gpt,
    "summed": partial(WrongGpt, loss_class=SummedMeans),
    "unmasked": partial(WrongGpt, loss_class=PaddingCounts),
    "full weights": partial(WrongGpt, loss_class=FullWeights),
    "hoarder": partial(WrongGpt, stage_class=Hoarder),
    "late hoarder": partial(WrongGpt, stage_class=LateHoarder),
}


def wrong_rank(model):
    """What a rank runs that has one of MODELS."""
    return Run("tests.pipeline.faults:serve_wrong", (model,))


def serve_wrong(model, *arguments):
    """Runs in the process of a rank."""
    from autotune.pipeline.rank.rank import serve

    serve(*arguments, MODELS[model])


def take_all_memory():
    """Until the limit is met."""
    taken = []
    while True:
        taken.append(torch.ones(2**20))


def receive_for_ever():
    """What nobody sends."""
    dist.recv(torch.empty(1), (dist.get_rank() + 1) % dist.get_world_size(), tag=99)


def fail(where):
    raise RuntimeError(f"planted in {where}")


class FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        fail("the backward")


IN_FORWARD = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "out of memory": take_all_memory,
    "stuck receive": receive_for_ever,
    "exception in forward": lambda: fail("the forward"),
}
AFTER_FORWARD = {
    "exception in backward": FailingBackward.apply,
    "NaN loss": lambda out: out * float("nan"),
}
FAULTS = (*IN_FORWARD, *AFTER_FORWARD, "exception in optimizer")


class FaultyStage(nn.Sequential):
    """Goes wrong at micro-batches of one size, and only once where a file is to remember that it has."""

    def plant(self, fault, size, once):
        self.fault, self.size, self.once, self.is_due = fault, size, once, False
        register_optimizer_step_pre_hook(lambda *_: fail("the optimizer") if self.is_due else None)
        return self

    def forward(self, x):
        if x.shape[0] != self.size or (self.once and Path(self.once).exists()):
            return super().forward(x)
        if self.once:
            Path(self.once).touch()
        if self.fault in IN_FORWARD:
            IN_FORWARD[self.fault]()
        self.is_due = self.fault == "exception in optimizer"
        return AFTER_FORWARD.get(self.fault, lambda out: out)(super().forward(x))


@dataclass(frozen=True)
class FaultyGpt(Gpt):
    """The built-in GPT in even stages, of which one has the ``planted`` fault."""

    planted: tuple = ()
    stage: int = 0

    def build_stage(self, layers, device):
        stage = super().build_stage(layers, device)
        if layers.start // len(layers) != self.stage:
            return stage
        return FaultyStage(*stage.children()).plant(*self.planted)


def faulty_rank(fault, stage, size, once=None):
    """What a rank runs whose ``stage`` has the fault."""
    return Run("tests.pipeline.faults:serve_faulty", ((fault, size, once and str(once)), stage))


def serve_faulty(planted, stage, *arguments):
    """Runs in the process of a rank."""
    from autotune.pipeline.rank.rank import serve

    serve(*arguments, partial(FaultyGpt, planted=tuple(planted), stage=stage))
