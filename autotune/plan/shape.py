"""A transformer as far as its time and memory depend on it: sizes, from flags, a TOML file or Hugging Face's config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, ValidationError, model_validator

from autotune.config import read_toml
from autotune.errors import InputError
from autotune.records.base import Record, read_json
from autotune.records.complaint import explain
from autotune.records.job.workload import WorkloadFacts

FOLDER = "models"
HUGGING_FACE = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "ffn": ("intermediate_size", "n_inner"),
    "vocab": ("vocab_size",),
    "seq_len": ("max_position_embeddings", "n_positions"),
}
"""Our names, and under which a ``config.json`` of Hugging Face has them."""
UNGATED = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu")


class Shape(Record):
    """Sizes of a decoder: ``layers`` alike, an embedding before them, a head of its own after them."""

    name: str | None = None
    """Name, as in tables."""
    layers: PositiveInt
    """Layers of the model."""
    hidden: PositiveInt
    """Width of the model (h)."""
    heads: PositiveInt
    """Attention heads (a)."""
    kv_heads: PositiveInt
    """Heads of keys and values; as many as ``heads``, or fewer that several share."""
    ffn: PositiveInt
    """Width inside the MLP."""
    vocab: PositiveInt
    """Tokens in the vocabulary (V)."""
    seq_len: PositiveInt
    """Tokens per sequence (s)."""
    gated: bool = False
    """Whether the MLP has a third matrix, as SwiGLU has."""

    @property
    def kv_width(self) -> int:
        """Width of keys, and of values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def layer_weights(self) -> int:
        """Weights of one layer, without biases and norms, which hardly count."""
        attention = 2 * self.hidden * (self.hidden + self.kv_width)
        return attention + (3 if self.gated else 2) * self.hidden * self.ffn

    @property
    def vector_weights(self) -> int:
        """Weights of one layer's norms, and of its biases where the model is not gated: those with gates have none."""
        norms = 2 * self.hidden
        return norms if self.gated else 2 * norms + 2 * self.hidden + 2 * self.kv_width + self.ffn + self.hidden

    @property
    def weights(self) -> int:
        """Weights of the whole model."""
        return self.layers * (self.layer_weights + self.vector_weights) + 2 * self.vocab * self.hidden

    def model_operations(self, sequences: int) -> float:
        """Return floating-point operations that the model itself asks of a step: forward, and twice that backward,
        without anything computed again; scores of a causal mask in full, as Narayanan et al. 2021 count them."""
        per_layer = 2 * self.layer_weights + 4 * self.seq_len * self.hidden
        return 3.0 * sequences * self.seq_len * (self.layers * per_layer + 2 * self.hidden * self.vocab)

    @model_validator(mode="after")
    def _heads_divide(self) -> "Shape":
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"heads: they must divide hidden {self.hidden}, and kv_heads must divide them (given: {self.heads} and"
                f" {self.kv_heads}); change one of them"
            )
        return self


def read_shape(source: Path, changes: Mapping[str, int | None]) -> Shape:
    """Read a model's sizes from a TOML file, the name of one that ships, or Hugging Face's ``config.json`` or its
    folder; ``changes``: sizes that flags give instead. Raise InputError with path and key."""
    text = str(source)
    path = Path(text.removeprefix("hf:"))
    path = path / "config.json" if path.is_dir() else path
    table = of_hugging_face(path) if path.suffix == ".json" else read_toml(source, FOLDER)
    try:
        return Shape.model_validate(table | {name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        raise InputError(f"model {source}: {explain(error, Shape)}") from None


def of_hugging_face(path: Path) -> dict[str, Any]:
    """Return the sizes in a ``config.json``; raise InputError where it has none."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"{path} is no model's config.json: it must be an object")
    found = {
        ours: next(document[name] for name in names if document.get(name) is not None)
        for ours, names in HUGGING_FACE.items()
        if any(document.get(name) is not None for name in names)
    }
    if "hidden" not in found or "layers" not in found:
        raise InputError(
            f"{path} is no model's config.json: it lacks hidden_size or num_hidden_layers; give a TOML file"
        )
    activation = document.get("hidden_act") or document.get("activation_function") or "gelu"
    found.setdefault("kv_heads", found.get("heads"))
    if isinstance(found["hidden"], int):
        found.setdefault("ffn", 4 * found["hidden"])
    return found | {"gated": activation not in UNGATED, "name": document.get("model_type")}


def of_workload(facts: WorkloadFacts) -> Shape | None:
    """Return the sizes of the built-in GPT as a profile states them; None where it leaves some out."""
    sizes = {name: getattr(facts, name) for name in ("layers", "hidden", "heads", "vocab", "seq_len")}
    if None in sizes.values():
        return None
    return Shape(**sizes, kv_heads=sizes["heads"], ffn=4 * sizes["hidden"])
