"""Activation checkpointing: what a stage keeps of a forward for its backward, and what it computes a second time."""

from collections.abc import Sequence
from enum import StrEnum


class Recompute(StrEnum):
    """What the layers of a stage compute again in the backward."""

    NONE = "none"
    """Nothing: all that the backward needs is kept."""
    SELECTIVE = "selective"
    """All but matrix products and attention, whose results are kept."""
    FULL = "full"
    """Everything: only what enters a layer is kept."""


class RecomputeChoice(StrEnum):
    """What a user asks for."""

    NONE = "none"
    SELECTIVE = "selective"
    FULL = "full"
    AUTO = "auto"
    """The search chooses."""

    @property
    def modes(self) -> tuple[Recompute, ...]:
        """What is tried."""
        return tuple(Recompute) if self is RecomputeChoice.AUTO else (Recompute(self.value),)


Modes = tuple[Recompute, ...]
"""The mode of each stage, in the order of the model."""


def modes_of(mode: Recompute, stages: int) -> Modes | None:
    """Return the same mode for all stages; None where nothing is recomputed."""
    return None if mode is Recompute.NONE else (mode,) * stages


def show_modes(modes: Sequence[Recompute]) -> str:
    """Return ``full``, or ``full,none,none,none`` where stages differ."""
    return modes[0] if len(set(modes)) == 1 else ",".join(modes)
