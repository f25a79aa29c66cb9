"""The records of what real steps computed and left behind, compared between candidates."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autotune.records.base import Record


class Agreement(Record):
    """The difference of the first step from that of another candidate which began with the same weights and saw the
    same batch, as (own - reference's) / reference's: 0 except for rounding."""

    reference: NonNegativeInt
    """Index of the candidate that it is compared with."""
    loss: float
    """Relative difference of the loss."""
    gradient_norm: float
    """Relative difference of the gradient norm."""


class PeakSlope(Record):
    """The bytes that each further micro-batch adds to a rank's peak under 1F1B beyond what the memory model knows: 0
    where a rank releases every micro-batch after its backward. Of all ranks the one where it matters most."""

    rank: NonNegativeInt
    """The rank."""
    micro_batches: tuple[PositiveInt, ...] = Field(min_length=2)
    """The m that were compared."""
    micro_batch_size: PositiveInt
    """Sequences per micro-batch at the last of them."""
    bytes_per_micro_batch: float
    """Bytes that each further micro-batch of that size adds."""
    share_of_peak: float
    """The growth from the first m to the last, as a share of the peak."""


class Soundness(Record):
    """The comparison of real steps: do all candidates compute the same, and release what they hold? Null is what could
    not be told."""

    compared: NonNegativeInt = 0
    """Pairs of candidates that saw the same batch and were compared."""
    loss_difference: NonNegativeFloat | None = None
    """Largest relative difference of the first step's loss."""
    gradient_difference: NonNegativeFloat | None = None
    """Largest relative difference of the first step's gradient norm."""
    tolerance: PositiveFloat | None = None
    """Relative difference up to which it is rounding."""
    not_compared: str | None = None
    """Why candidates were left out, a line for each reason."""
    growth_bytes: int | None = None
    """The most that any candidate left behind on any rank in each of its timed steps."""
    peak_slope: PeakSlope | None = None
    """The growth of the peak under 1F1B with each further micro-batch."""
    findings: tuple[str, ...] = ()
    """A line for everything that is wrong."""
