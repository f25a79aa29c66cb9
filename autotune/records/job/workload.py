"""The training job: what is known of it, and what its model is made from."""

from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Literal, Self

from autotune.records.job import gpt_sizes
from autotune.records.plain import NonNegativeFloat, NonNegativeInt, Plain, PositiveInt

Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["adamw", "sgd", "none"]
Norm = Literal["layer", "batch"]
Argument = bool | int | float | str
TOKEN_BYTES = 8
GPT = "GPT"
"""Name of the built-in model."""


@dataclass(frozen=True, kw_only=True)
class WorkloadFacts(Plain):
    """The known facts of the training job behind a profile; a hand-written profile may leave anything out."""

    model: str | None = None
    """Name of the model: GPT, or what was given with --model."""
    arguments: dict[str, Argument] | None = None
    """What the model's function was called with."""
    source_digest: str | None = None
    """Changes with the code or the config that the model is made from."""
    parameters: PositiveInt | None = None
    """Parameters of the whole model."""
    sample: str | None = None
    """What one row of the batch is called: sequence, image or sample."""
    sample_bytes: NonNegativeInt | None = None
    """Bytes of inputs and targets that every rank holds of a sample."""
    forward_operations: NonNegativeFloat | None = None
    """Floating-point operations of a forward of one sample, in matrix products, convolutions and attention."""
    draws_random_numbers: bool | None = None
    """True where a forward draws random numbers, as dropout does: then no two steps compute the same."""
    layers: PositiveInt | None = None
    """Layers that the model can be cut between: transformer blocks, as a rule."""
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
    data_parallel: PositiveInt | None = None
    """Replicas of the pipeline, whose gradients are reduced; null where there is one."""
    precision: Precision | None = None
    """Number format that the model computes in."""
    optimizer: Optimizer | None = None
    """Optimizer that steps after each batch."""
    norm: Norm | None = None
    """Normalisation: layer (LayerNorm) or batch (BatchNorm)."""
    seed: int | None = None
    """Seed of weights and data."""

    @property
    def held_bytes_per_sample(self) -> int:
        """Bytes of inputs and targets per sample: token ids and targets where nothing else is known."""
        return 2 * TOKEN_BYTES * (self.seq_len or 0) if self.sample_bytes is None else self.sample_bytes

    @property
    def replicas(self) -> int:
        """Replicas of the pipeline."""
        return self.data_parallel or 1

    @property
    def facts(self) -> "WorkloadFacts":
        """The facts alone, without what a model is built from."""
        return WorkloadFacts(**{name: getattr(self, name) for name in FACTS})


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig(WorkloadFacts):
    """The built-in GPT, every size settled: ``layers`` transformer blocks cut into ``stages``, ``batch`` sequences."""

    # field(): without a default, where WorkloadFacts has one.
    layers: PositiveInt = field()
    stages: PositiveInt = field()
    hidden: PositiveInt = field()
    heads: PositiveInt = field()
    seq_len: PositiveInt = field()
    vocab: PositiveInt = field()
    batch: PositiveInt = field()
    precision: Precision = field()
    optimizer: Optimizer = field()
    norm: Norm = "layer"
    seed: int = 0

    @classmethod
    def gpt(cls, **sizes: Any) -> Self:
        """Return the GPT of these sizes, with what reports say of it."""
        bare = cls(**sizes)
        return replace(
            bare,
            model=GPT,
            sample="sequence",
            parameters=gpt_sizes.parameters(bare),
            sample_bytes=2 * TOKEN_BYTES * bare.seq_len,
            forward_operations=sum(bare.operations_by_layer),
        )

    @property
    def operations_by_layer(self) -> tuple[float, ...]:
        """Floating-point operations of a forward of one sequence, by layer."""
        return gpt_sizes.layer_operations(self)


FACTS = tuple(entry.name for entry in fields(WorkloadFacts))
"""What is said of any model."""
GPT_SIZES = tuple(WorkloadConfig.__annotations__)
"""What the built-in GPT is made from."""
NEEDED = tuple(entry.name for entry in fields(WorkloadConfig) if entry.default is MISSING)
"""Of these, what has no default."""


class Library(StrEnum):
    """Who knows how to build a model that is not ours."""

    CODE = "code"
    HUGGING_FACE = "hf"


@dataclass(frozen=True, kw_only=True)
class ModelPlace(Plain):
    """What ``--model`` says: ``PLACE:NAME``, or ``hf:PATH``."""

    library: Library
    """Who builds the model: code, or Hugging Face."""
    place: str
    """A file of Python code, or a module's dotted name; of Hugging Face a config.json or its folder."""
    name: str
    """The function in it; nothing for Hugging Face."""

    @property
    def title(self) -> str:
        """The model's name in reports, without the folders of this machine."""
        where = PurePath(self.place).name
        return f"hf:{where}" if self.library is Library.HUGGING_FACE else f"{where}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class ModelRequest(Plain):
    """A model of the user's before anybody has looked at it. ``most_stages``: that some candidate cuts it into."""

    source: ModelPlace
    arguments: dict[str, Argument] = field(default_factory=dict)
    stages: PositiveInt
    most_stages: PositiveInt
    batch: PositiveInt
    optimizer: Optimizer
    precision: Precision | None = None
    seq_len: PositiveInt
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelConfig(WorkloadFacts):
    """A model of the user's: what ranks build it from, and what was found of it."""

    request: ModelRequest
    operations_by_layer: tuple[NonNegativeFloat, ...]
    """Floating-point operations of a forward of one sample, by layer."""
    cuts_itself: bool = False
    """True of a function of (stage, stages): no other cut than its own can be run."""
    layers: PositiveInt = field()
    stages: PositiveInt = field()
    batch: PositiveInt = field()
    optimizer: Optimizer = field()
    seed: int = 0


AnyWorkload = WorkloadConfig | ModelConfig
"""What ranks can be asked to build, by a row of ``autotune.workload.open``."""
