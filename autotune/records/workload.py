"""The training job: what is known of it, and what the built-in GPT is made from."""

from typing import Literal

from pydantic import PositiveInt

from autotune.records.base import Record

Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["adamw", "sgd", "none"]
Norm = Literal["layer", "batch"]


class WorkloadFacts(Record):
    """The known facts of the training job behind a profile; a hand-written profile may leave anything out."""

    layers: PositiveInt | None = None
    """Transformer blocks."""
    stages: PositiveInt | None = None
    """Pipeline stages, one device each."""
    hidden: PositiveInt | None = None
    """Width of the model."""
    heads: PositiveInt | None = None
    """Attention heads."""
    seq_len: PositiveInt | None = None
    """Tokens per sequence."""
    vocab: PositiveInt | None = None
    """Tokens in the vocabulary."""
    batch: PositiveInt | None = None
    """Sequences per step of one pipeline (B)."""
    precision: Precision | None = None
    """Number format that the model computes in."""
    optimizer: Optimizer | None = None
    """Optimizer that steps after each batch."""
    norm: Norm | None = None
    """Normalisation: layer (LayerNorm) or batch (BatchNorm)."""
    seed: int | None = None
    """Seed of weights and data."""


class WorkloadConfig(WorkloadFacts):
    """The training job, every size settled: ``layers`` transformer blocks cut into ``stages``, ``batch`` sequences."""

    layers: PositiveInt
    stages: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    seq_len: PositiveInt
    vocab: PositiveInt
    batch: PositiveInt
    precision: Precision
    optimizer: Optimizer
    norm: Norm = "layer"
    seed: int = 0
