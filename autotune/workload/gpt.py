"""The built-in GPT, stage by stage: embedding, pre-norm blocks, LM head, loss.

Each layer's weights depend only on the seed and the layer's index, so the same model comes out however it is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import WorkloadConfig, WorkloadFacts
from autotune.workload.partition import layers_of_stage
from autotune.workload.protocol import Batch, Loss
from autotune.workload.recompute import recompute

IGNORED = -100  # the target of padding rows: cross_entropy's own default for "not counted"
ELEMENT_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FeatureBatchNorm(nn.BatchNorm1d):
    """BatchNorm over the hidden features of (batch, tokens, hidden): its statistics see one micro-batch."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.flatten(0, 1)).view_as(hidden)


def norm_layer(workload: WorkloadConfig) -> nn.Module:
    """Return the block's normalisation over ``hidden`` features."""
    return nn.LayerNorm(workload.hidden) if workload.norm == "layer" else FeatureBatchNorm(workload.hidden)


class Embedding(nn.Module):
    """(batch, tokens) ids -> (batch, tokens, hidden)."""

    def __init__(self, workload: WorkloadConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(workload.vocab, workload.hidden)
        self.position = nn.Embedding(workload.seq_len, workload.hidden)

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.token(ids) + self.position.weight
        return hidden


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, workload: WorkloadConfig) -> None:
        super().__init__()
        hidden = workload.hidden
        self.heads = workload.heads
        self.norm_attention, self.norm_mlp = norm_layer(workload), norm_layer(workload)
        self.qkv, self.project = (nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden))
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.project(self.attention(self.qkv(self.norm_attention(x))))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out

    def attention(self, qkv: Tensor) -> Tensor:
        batch, tokens, width = qkv.shape
        q, k, v = qkv.view(batch, tokens, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, tokens, width // 3)


class Head(nn.Sequential):
    """(batch, tokens, hidden) -> (batch, tokens, vocab) logits."""

    def __init__(self, workload: WorkloadConfig) -> None:
        super().__init__(norm_layer(workload), nn.Linear(workload.hidden, workload.vocab, bias=False))


def cast_to(part: nn.Module, element_type: torch.dtype) -> nn.Module:
    """Give the weights of ``part`` the type that the model computes in; gradients are summed in fp32 all the same.

    Batch normalisation keeps fp32, as launchers leave it: its running statistics are sums of many small changes, and
    torch takes fp32 weights with inputs of lower precision there.
    """
    for module in part.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(element_type)
                weight.grad_dtype = torch.float32
    return part


def seeded(kind: type[nn.Module], workload: WorkloadConfig, number: int) -> nn.Module:
    """Build part ``number`` of the model with weights that depend on the seed and the number alone."""
    torch.manual_seed(workload.seed * 1_000_003 + number)
    return kind(workload)


def boundary_type(workload: WorkloadConfig) -> torch.dtype:
    """Return the element type of what crosses a stage boundary, and of all that lies between."""
    return ELEMENT_TYPES[workload.precision]


class SequenceLoss:
    """Cross-entropy summed over real tokens, divided by the real tokens of the whole batch.

    Summed over the micro-batches of a step it is the mean loss of the ``sequences`` real sequences, and so are its
    gradients, whatever the padding. ``scale`` keeps fp16 gradients from vanishing; it is 1 otherwise.
    """

    def __init__(self, workload: WorkloadConfig, sequences: int) -> None:
        self.scale = 1024.0 if workload.precision == "fp16" else 1.0
        self.tokens = sequences * workload.seq_len

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        summed = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return summed * (self.scale / self.tokens)


def random_batch(
    workload: WorkloadConfig, sequences: int, padding: int, device: torch.device, replica: int = 0
) -> tuple[Tensor, Tensor]:
    """Return random token ids and their next-token targets, each (sequences + padding, seq_len); padding targets
    IGNORED."""
    generator = torch.Generator().manual_seed(workload.seed + replica)
    text = torch.randint(workload.vocab, (sequences, workload.seq_len + 1), generator=generator)
    ids = functional.pad(text[:, :-1], (0, 0, 0, padding))
    targets = functional.pad(text[:, 1:], (0, 0, 0, padding), value=IGNORED)
    return ids.contiguous().to(device), targets.contiguous().to(device)


@dataclass(frozen=True)
class Gpt:
    """The built-in GPT as a Workload: layer ``n`` is block ``n``, part ``n + 1`` of the model."""

    sizes: WorkloadConfig

    @property
    def facts(self) -> WorkloadFacts:
        """The facts that reports state of it."""
        return self.sizes

    def build_stage(self, layers: range, device: torch.device) -> nn.Sequential:
        """Build the stage of ``layers`` in the workload's precision.

        Every part has its own random numbers, in fp32, and is cast before the next one is made.
        """
        with torch.random.fork_rng(devices=[]), device:
            return nn.Sequential(
                *(cast_to(seeded(kind, self.sizes, n), boundary_type(self.sizes)) for n, kind in self._parts(layers))
            )

    def layers_in(self, stage: nn.Module) -> list[nn.Module]:
        """Return the blocks of a stage."""
        return [part for part in stage.children() if isinstance(part, Block)]

    def reset_stage(self, stage: nn.Module, layers: range) -> None:
        """Give a stage its first weights back; a second copy is held of one part at a time."""
        device = next(stage.parameters()).device
        with torch.random.fork_rng(devices=[]), device:
            for part, (number, kind) in zip(stage.children(), self._parts(layers), strict=True):
                part.load_state_dict(seeded(kind, self.sizes, number).state_dict())

    def _parts(self, layers: range) -> list[tuple[int, type[nn.Module]]]:
        """Number in the model and kind of each part of the stage of ``layers``."""
        kinds: list[tuple[int, type[nn.Module]]] = [(layer + 1, Block) for layer in layers]
        if layers.start == 0:
            kinds.insert(0, (0, Embedding))
        if layers.stop == self.sizes.layers:
            kinds.append((self.sizes.layers + 1, Head))
        return kinds

    def batch(self, sequences: int, padding: int, device: torch.device, replica: int = 0) -> Batch:
        """Return random token ids and their next-token targets."""
        ids, targets = random_batch(self.sizes, sequences, padding, device, replica)
        return Batch((ids,), targets)

    def boundary(self, layer: int, micro_batch_size: int) -> tuple[Tensor, ...]:
        """Return token ids (b, tokens), hidden states (b, tokens, hidden) or logits (b, tokens, vocab)."""
        shape = (micro_batch_size, self.sizes.seq_len)
        if layer == 0:
            return (torch.empty(shape, dtype=torch.int64, device="meta"),)
        width = self.sizes.vocab if layer == self.sizes.layers else self.sizes.hidden
        return (torch.empty(*shape, width, dtype=boundary_type(self.sizes), device="meta", requires_grad=True),)

    def loss(self, sequences: int) -> Loss:
        """Return the mean cross-entropy of a token."""
        return SequenceLoss(self.sizes, sequences)


def build_stage(
    workload: WorkloadConfig,
    index: int,
    stages: int,
    device: torch.device,
    split: Sequence[int] | None = None,
    modes: Sequence[Recompute] | None = None,
) -> nn.Sequential:
    """Build stage ``index`` of ``stages``, cut as ``split`` says or as evenly as possible; ``modes``: what each stage
    recomputes."""
    model = Gpt(workload)
    stage = model.build_stage(layers_of_stage(workload.layers, stages, index, split), device)
    recompute(model.layers_in(stage), modes[index] if modes else Recompute.NONE)
    return stage
