"""Placeholders in a command and its files, and the values of a candidate that take their place."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence

from autotune.errors import UsageError
from autotune.records.job.split import Split, show_split, to_megatron, to_torchtitan
from autotune.records.prediction import Candidate

PLACEHOLDER = re.compile(r"\{([a-z_]+)(?:=(\d+))?\}")
"""A name, and perhaps the number that stands there in the user's own command."""
NAMES = (
    "micro_batches",
    "micro_batch_size",
    "batch",
    "global_batch",
    "schedule",
    "virtual_stages",
    "stages",
    "data_parallel",
    "port",
    "trial_dir",
    "layout",
    "layers_per_stage",
    "module_names",
)
CHOSEN = ("micro_batches", "micro_batch_size")
"""Those of which one at least must reach the command, or every trial is the same."""
CUTS = ("layout", "layers_per_stage", "module_names")
"""The cut of the layers, as Megatron-LM, people and torchtitan write it."""


def values_of(
    candidate: Candidate, stages: int, data_parallel: int, port: int, trial_dir: str, cut: Split | None = None
) -> dict[str, str]:
    """Return what takes the place of each placeholder. ``batch`` is of one replica, ``global_batch`` of all; ``cut``:
    layers of each stage, without which nothing says the cut."""
    batch = candidate.micro_batches * candidate.micro_batch_size
    values = {
        "micro_batches": candidate.micro_batches,
        "micro_batch_size": candidate.micro_batch_size,
        "batch": batch,
        "global_batch": batch * data_parallel,
        "schedule": candidate.schedule,
        "virtual_stages": candidate.virtual_stages,
        "stages": stages,
        "data_parallel": data_parallel,
        "port": port,
        "trial_dir": trial_dir,
    }
    if cut is not None:
        spellings = (to_megatron(cut), show_split(cut), json.dumps(to_torchtitan(cut, "output")))
        values |= dict(zip(CUTS, spellings, strict=True))
    return {name: str(value) for name, value in values.items()}


def names_in(texts: Sequence[str]) -> set[str]:
    """Return the words in braces that may be placeholders."""
    return {match[1] for text in texts for match in PLACEHOLDER.finditer(text)}


def present_numbers(texts: Sequence[str]) -> dict[str, int]:
    """Return by name the numbers that stand in placeholders, such as ``{micro_batches=8}``."""
    found = [match for text in texts for match in PLACEHOLDER.finditer(text) if match[2]]
    return {match[1]: int(match[2]) for match in found if int(match[2])}


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return ``text`` with its placeholders filled; other words in braces stay as they are."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def check_placeholders(texts: Sequence[str]) -> None:
    """Raise UsageError for a word in braces that looks like a placeholder misspelt."""
    for name in names_in(texts) - set(NAMES):
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.75)
        if near:
            raise UsageError(f"{{{name}}} is no placeholder: did you mean {{{near[0]}}}? They are {', '.join(NAMES)}")


def says_which(texts: Sequence[str]) -> bool:
    """Return whether m or b reaches the command by a placeholder."""
    return not names_in(texts).isdisjoint(CHOSEN)


def environment_of(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values as variables: ``AUTOTUNE_MICRO_BATCHES`` and so on."""
    return {f"AUTOTUNE_{name.upper()}": value for name, value in values.items()}
