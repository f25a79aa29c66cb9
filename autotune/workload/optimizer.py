"""The optimizers that step after each batch: torch's optimizers over weights in fp32, whatever the model computes in.

A model in lower precision is cast from fp32 master weights, once after each of their updates, as Megatron-LM and
DeepSpeed do it. So there is one copy of its weights however many micro-batches are in flight (autocast inside a forward
makes one for each), and the cast is a cost of the step and not of a micro-batch. In bytes per weight::

                          fp32   bf16, fp16
    weight                  4        2        read by every forward and backward
    gradient                4        4        summed over the micro-batches, so that their number rounds nothing off
    master weight           -        4        only where there is an optimizer
    AdamW's two moments     8        8
"""

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

MOMENTS = {"adamw": 2, "sgd": 0, "none": 0}
"""Numbers that each optimizer keeps of a weight, in fp32."""


class MasterWeights:
    """An optimizer over the fp32 weights behind those of ``stages``: a weight in fp32 is its own."""

    def __init__(self, stages: nn.Module, name: str) -> None:
        every: list[Tensor] = [*trained(stages)]
        self.low = [weight for weight in every if weight.dtype != torch.float32]
        self.masters = [weight.detach().float() for weight in self.low]
        own = [weight for weight in every if weight.dtype == torch.float32]
        self.optimizer = torch_optimizer(own + self.masters, name)

    def step(self) -> None:
        """Update every weight from its gradient, which stays as it is."""
        for master, weight in zip(self.masters, self.low, strict=True):
            master.grad = weight.grad
        self.optimizer.step()
        copy(self.low, self.masters)

    def restart(self) -> None:
        """Take the weights as they are now: something other than ``step`` has changed them."""
        copy(self.masters, self.low)


def copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors one to one, into the type of each target."""
    if targets:  # torch refuses empty lists
        with torch.no_grad():
            torch._foreach_copy_(targets, sources)


def torch_optimizer(weights: list[Tensor], name: str) -> Optimizer:
    """Return AdamW or SGD; AdamW fused into one kernel, which CPUs and GPUs have.

    By default it would be a series of kernels over all weights at once on a GPU, with as many bytes between them as the
    weights have, and about twice the time.
    """
    return AdamW(weights, lr=1e-4, fused=True) if name == "adamw" else SGD(weights, lr=1e-3)


def build_optimizer(stages: nn.Module, name: str) -> MasterWeights | None:
    """Return the optimizer of a workload over the weights of ``stages``; None for "none", and without weights."""
    return None if name == "none" or not trained(stages) else MasterWeights(stages, name)


def trained(stages: nn.Module) -> list[nn.Parameter]:
    """Return the weights that are trained: frozen ones have no gradient."""
    return [weight for weight in stages.parameters() if weight.requires_grad]


def hold_gradients(stages: nn.Module) -> None:
    """Give every weight its gradient in fp32, zero, for torch to add to in place.

    ``grad_dtype`` None: the gradient of a micro-batch in lower precision is added as it is, and not cast to fp32 first.
    """
    for weight in trained(stages):
        weight.grad_dtype = None
        weight.grad = torch.zeros_like(weight, dtype=torch.float32)


def static_bytes(stage: nn.Module, name: str) -> int:
    """Return the bytes that ``stage`` holds from the beginning to the end: weights, gradients, what the optimizer
    ``name`` keeps, constant buffers. They may lie on "meta"."""
    total = sum(buffer.nbytes for buffer in stage.buffers())
    for weight in stage.parameters():
        total += weight.nbytes
        if weight.requires_grad:
            masters = int(weight.dtype != torch.float32 and name != "none")
            total += 4 * weight.numel() * (1 + masters + MOMENTS[name])
    return total
