"""The cost of one micro-batch on one stage: seconds and bytes. Ranks measure it, profiles hold it, predictions read
it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from autotune.records.plain import NonNegativeFloat, NonNegativeInt, Plain, PositiveInt, Row


@dataclass(frozen=True, kw_only=True)
class StageTime(Plain):
    """Seconds of one micro-batch of ``micro_batch_size`` sequences on one stage, alone on its host.

    The fused backward ``t_bw`` is given, or ``t_b`` and ``t_w`` (input gradient, weight gradient), or all three where
    a split backward costs more than the fused one. ``samples_*`` are the raw passes whose medians the times are.
    """

    # One that was made in Python has not been looked at before it is put into a profile.
    __pydantic_config__ = Plain.__pydantic_config__ | {"revalidate_instances": "always"}

    micro_batch_size: PositiveInt
    """Sequences per micro-batch that the times are of."""
    t_f: NonNegativeFloat
    """Seconds of a forward."""
    t_b: NonNegativeFloat | None = None
    """Seconds of a backward for the input gradient alone."""
    t_w: NonNegativeFloat | None = None
    """Seconds of a backward for the weight gradient alone."""
    t_bw: NonNegativeFloat | None = None
    """Seconds of a fused backward."""
    samples_f: tuple[NonNegativeFloat, ...] = ()
    """Seconds of each timed forward."""
    samples_bw: tuple[NonNegativeFloat, ...] = ()
    """Seconds of each timed fused backward."""
    samples_b: tuple[NonNegativeFloat, ...] = ()
    """Seconds of each timed input-gradient backward."""
    samples_w: tuple[NonNegativeFloat, ...] = ()
    """Seconds of each timed weight-gradient backward."""
    host_s: NonNegativeFloat | None = None
    """CPU seconds to start a forward and a fused backward on a GPU; none where the CPU computes."""

    @staticmethod
    def of(
        micro_batch_size: int,
        f: Sequence[float],
        bw: Sequence[float],
        b: Sequence[float],
        w: Sequence[float],
        host: Sequence[float] = (),
    ) -> "StageTime":
        """Return the row of measured passes: medians, and the samples behind them. ``host``, CPU seconds, may be empty,
        and so may ``bw``, or ``b`` and ``w``."""
        return StageTime(
            micro_batch_size=micro_batch_size,
            t_f=median(f),
            t_bw=median(bw) if bw else None,
            t_b=median(b) if b else None,
            t_w=median(w) if w else None,
            samples_f=tuple(f),
            samples_bw=tuple(bw),
            samples_b=tuple(b),
            samples_w=tuple(w),
            host_s=median(host) if host else None,
        )

    @staticmethod
    def merged(rows: Sequence["StageTime"]) -> "StageTime":
        """Return one row of the samples of several rows of the same micro-batch size."""
        names = ("samples_f", "samples_bw", "samples_b", "samples_w")
        f, bw, b, w = ([sample for row in rows for sample in getattr(row, name)] for name in names)
        host = [row.host_s for row in rows if row.host_s is not None]
        return StageTime.of(rows[0].micro_batch_size, f, bw, b, w, host)

    def __post_init__(self) -> None:
        if (self.t_b is None) != (self.t_w is None) or (self.t_b is None and self.t_bw is None):
            raise ValueError("give the backward as t_bw (fused), or as t_b with t_w (input gradient, weight gradient)")

    @property
    def backward(self) -> float:
        """Seconds of the fused backward; t_b + t_w where only these are known."""
        return self.t_bw if self.t_bw is not None else (self.t_b or 0.0) + (self.t_w or 0.0)

    @property
    def input_gradient(self) -> float:
        """Seconds of a backward for the input alone; half the fused one where the split is not known."""
        return self.t_b if self.t_b is not None else self.backward / 2

    @property
    def weight_gradient(self) -> float:
        """Seconds of a backward for the weights that follows; half the fused one where the split is not known."""
        return self.t_w if self.t_w is not None else self.backward / 2


@dataclass(frozen=True, kw_only=True)
class StageMemory(Plain):
    """Bytes of one micro-batch on one stage."""

    micro_batch_size: PositiveInt
    """Sequences per micro-batch that the bytes are of."""
    activation_bytes: NonNegativeInt
    """Held from the forward to the backward, without the received input, which is a communication buffer."""
    transient_bytes: NonNegativeInt = 0
    """The most that a forward or fused backward holds above that while it runs."""
    split_held_bytes: NonNegativeInt | None = None
    """Held between the two halves of a split backward; null where not measured."""
    input_transient_bytes: NonNegativeInt | None = None
    """The most that the input gradient holds above what is held when it begins; null where not measured."""
    weight_transient_bytes: NonNegativeInt | None = None
    """The most that the weight gradient holds above what is held when it begins; null where not measured."""


@dataclass(frozen=True, kw_only=True)
class LayerProfile(Plain):
    """What a layer costs by itself, with what comes before the first or after the last where it is that one."""

    layers: Row[NonNegativeInt]
    """Layers of the model that are alike, of which the first was measured."""
    static_bytes: NonNegativeInt = 0
    """Weights, gradients, optimizer state and constant buffers."""
    parameters: NonNegativeInt = 0
    """Number of weights."""
    time_s: Row[StageTime]
    """Times by micro-batch size, ascending."""
    memory: tuple[StageMemory, ...] = ()
    """Memory by micro-batch size, ascending."""
