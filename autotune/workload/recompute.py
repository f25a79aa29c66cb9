"""Activation checkpointing of the layers of a stage, by torch's own ``torch.utils.checkpoint``.

What a layer keeps of a forward (x its input, W a matrix product or attention, o everything else)::

    none        x o W o W o W     all that the backward needs
    selective   x   W   W   W     the rest is computed again, when the backward comes to the layer
    full        x                 the whole layer is

Selective keeps what is expensive to compute and cheap to hold, as torchtitan and Megatron do by default.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from autotune.records.job.recompute import Recompute

aten = torch.ops.aten
KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}
"""Operators whose results selective checkpointing keeps."""


def keep_products(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    """Return whether the result of an operator is kept: torch's form of a policy."""
    return CheckpointPolicy.MUST_SAVE if operator in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def recompute(layers: Iterable[nn.Module], mode: Recompute) -> None:
    """Make ``layers`` compute again in the backward what ``mode`` does not keep.

    Their forward is replaced in the instance: names and weights stay as they are. Random numbers are drawn again as
    they were, so that dropout is the same in both.
    """
    if mode is Recompute.NONE:
        return
    again: Callable[..., Any] = partial(checkpoint, use_reentrant=False)
    if mode is Recompute.SELECTIVE:
        again = partial(again, context_fn=partial(create_selective_checkpoint_contexts, keep_products))
    for layer in layers:
        layer.forward = partial(again, layer.forward)
