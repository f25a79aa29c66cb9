"""The Placement of stages on ranks, and of layers on stages."""

from dataclasses import dataclass

from autotune.records.job.recompute import Modes, Recompute
from autotune.records.job.split import Split
from autotune.records.plain import Plain, PositiveInt
from autotune.schedule_spec import SCHEDULES, ScheduleName


@dataclass(frozen=True, kw_only=True)
class Placement(Plain):
    """The placement of stages on ranks: ``virtual_stages`` stages on each, in a loop or ``v_shaped``, in a V.

    ``split``: the layers of each stage, in the order of the model; None: cut as evenly as possible. ``recompute``: what
    each stage computes again in its backward; None: nothing.
    """

    virtual_stages: PositiveInt = 1
    v_shaped: bool = False
    split: tuple[PositiveInt, ...] | None = None
    recompute: tuple[Recompute, ...] | None = None

    @staticmethod
    def of(
        schedule: ScheduleName, virtual_stages: int, split: Split | None = None, recompute: Modes | None = None
    ) -> "Placement":
        """Return how a schedule lays its stages."""
        v_shaped = SCHEDULES[schedule].placement == "v"
        return Placement(virtual_stages=virtual_stages, v_shaped=v_shaped, split=split, recompute=recompute)

    def mode_of(self, stage: int) -> Recompute:
        """Return what a stage computes again."""
        return self.recompute[stage] if self.recompute else Recompute.NONE
