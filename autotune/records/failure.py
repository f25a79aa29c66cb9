"""The Failure of a candidate, as a rank tells it and a report repeats it."""

from dataclasses import dataclass
from typing import Literal

from autotune.records.plain import NonNegativeInt, Plain

FailureKind = Literal["out_of_memory", "hang", "crash", "model_error"]


@dataclass(frozen=True, kw_only=True)
class Failure(Plain):
    """A candidate that did not run. Null is what is not known."""

    kind: FailureKind
    """The kind of failure."""
    rank: NonNegativeInt | None = None
    """Rank that failed; null where no single rank is to blame."""
    message: str
    """The failure, in one line."""
    stage: NonNegativeInt | None = None
    """Stage that the rank was at work on."""
    action: str | None = None
    """The rank's action then."""
    short_bytes: NonNegativeInt | None = None
    """Bytes that the rank lacked, at least."""
    last_words: str | None = None
    """End of what the rank wrote to its stderr."""
