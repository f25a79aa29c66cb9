"""A cut of the layers into contiguous stages, in the three spellings that launchers and people have for it.

::

    13,13,12,10                              layers of each stage, in the order of the model
    Et*13|t*13|t*12|t*10L                    Megatron-LM's --pipeline-model-parallel-layout
    [["tok_embeddings", "layers.0"], ...]    torchtitan's module_fqns_per_model_part, as JSON

What comes before the first layer belongs to the first stage and what comes after the last to the last one, so the
numbers of layers say it all.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

Split = tuple[int, ...]
"""Layers of each stage, in the order of the model."""

MOST_LAYERS = 100_000  # of a layout with multiplications: a few characters could otherwise ask for any number
LAYER_NAME = re.compile(r"(.+)\.(\d+)")
GROUP, ONE = re.compile(r"\(([^()]+)\)\*(\d+)"), re.compile(r"(.)\*(\d+)")
SPELLINGS = "13,13,12,10, or Megatron's layout such as Et*13|t*13|t*12|t*10L, or torchtitan's lists of module names"


def parse_split(value: Any) -> Any:
    """Return the layers of each stage from any of the three spellings, the lists of a config file too; passes lists of
    numbers through.

    Raises ValueError where the text is none of them, or says what no cut of ours is.
    """
    if not isinstance(value, str):
        return of_names(value) if isinstance(value, list) and any(isinstance(part, list) for part in value) else value
    text = value.strip()
    if text.startswith("["):
        return from_torchtitan(text)
    if text.startswith("E") or "|" in text:
        return from_megatron(text)
    counts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in counts):
        raise ValueError(f"write a cut as {SPELLINGS}")
    return tuple(int(part) for part in counts)


def show_split(split: Sequence[int]) -> str:
    """Return ``13,13,12,10``."""
    return ",".join(map(str, split))


def from_megatron(text: str) -> Split:
    """Return the cut of a layout string: E the embedding, t a layer, L the loss, | between stages, ``x*n`` and
    ``(..)*n`` repeated n times, commas cosmetic.

    With several stages to a rank the order is that of the model already. Raises ValueError for what no cut of ours is:
    a stage without a layer, an embedding or a loss that is not at its end, multi-token prediction.
    """
    layout = repeated(repeated(text.replace(",", "").replace(" ", ""), GROUP), ONE)
    if unknown := sorted(set(layout) - set("EtmL|")):
        raise ValueError(f"Megatron's layout has E, t, m, L, |, *n and brackets (given: {''.join(unknown)})")
    if "m" in layout:
        raise ValueError("a layer for multi-token prediction (m) is not a layer of the models that run here")
    inner = layout.removeprefix("E").removesuffix("L")
    if "E" in inner or "L" in inner:
        raise ValueError("the embedding (E) comes first in a layout and the loss (L) last")
    stages = inner.split("|")
    if "" in stages:
        raise ValueError(
            f"stage {stages.index('')} has no layer (t): embedding and loss lie with the first and the last layer here"
        )
    return tuple(map(len, stages))


def repeated(text: str, pattern: re.Pattern[str]) -> str:
    """Return the text with every multiplication written out."""

    def write_out(found: re.Match[str]) -> str:
        if len(found[1]) * int(found[2]) > MOST_LAYERS:
            raise ValueError(f"a layout has {MOST_LAYERS} layers at most")
        return found[1] * int(found[2])

    return pattern.sub(write_out, text)


def to_megatron(split: Sequence[int]) -> str:
    """Return the layout string, ``Et*13|t*13|t*12|t*10L``."""
    stages = ["t" * count if count < 4 else f"t*{count}" for count in split]
    return f"E{'|'.join(stages)}L"


def from_torchtitan(text: str) -> Split:
    """Return the cut of JSON lists of module names, one list for each stage; or of a list of numbers."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"write a cut as {SPELLINGS}") from None
    return tuple(parts) if all(type(part) is int for part in parts) else of_names(parts)


def of_names(parts: list[Any]) -> Split:
    """Return the cut of lists of module names, one list for each stage.

    A layer is a name that ends in a number, of the list with the most of them. Raises ValueError where layers are
    missing, double or not in order.
    """
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts):
        raise ValueError("give a list of module names for each stage, such as [['tok_embeddings', 'layers.0'], ...]")
    names = [[match for name in part if (match := LAYER_NAME.fullmatch(name))] for part in parts]
    prefixes = [match[1] for part in names for match in part]
    prefix = max(set(prefixes), key=prefixes.count, default="")
    numbers = [[int(match[2]) for match in part if match[1] == prefix] for part in names]
    row = [number for part in numbers for number in part]
    if row != list(range(len(row))):
        raise ValueError(f"the stages must hold {prefix or 'layers'}.0, .1, .2, ... in order, each once (given: {row})")
    if [] in numbers:
        raise ValueError(f"stage {numbers.index([])} has no layer: embedding and head lie with the first and last here")
    return tuple(map(len, numbers))


def to_torchtitan(split: Sequence[int], head: str) -> list[list[str]]:
    """Return the module names of each stage as torchtitan's decoders call them; ``head``: the output layer's name."""
    first = [sum(split[:stage]) for stage in range(len(split))]
    parts = [[f"layers.{at + layer}" for layer in range(count)] for at, count in zip(first, split, strict=True)]
    parts[0].insert(0, "tok_embeddings")
    parts[-1] += ["norm", head]
    return parts


def is_even(split: Sequence[int]) -> bool:
    """Return whether all stages have equally many layers."""
    return len(set(split)) == 1
