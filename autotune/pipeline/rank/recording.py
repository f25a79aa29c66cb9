"""When a rank really begins and ends each action of a step, for a timeline to be laid beside the predicted one."""

import time
from typing import Any, NamedTuple, get_args

from autotune.pipeline.control.commands import ActionName, RecordedAction
from autotune.pipeline.device.device import Device

RECORDED = get_args(ActionName)
"""The actions of a schedule, among all that ``autotune.pipeline.control.activity`` is told of."""


class Stamped(NamedTuple):
    """An action between two points of the device's work."""

    name: str
    stage: int
    micro_batch: int
    begun: Any
    ended: Any


class Recording:
    """Actions of one step in the order in which they ran; it begins where the device is idle.

    Two points of the device's work are noted per action, which takes a microsecond or two; they are read when the
    step is over.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.actions: list[Stamped] = []
        self.open: tuple[str, int, int, Any] | None = None
        device.synchronize()
        self.first = device.stamp()
        device.synchronize()
        self.first_s = time.monotonic()

    def begin(self, name: str, stage: int, micro_batch: int) -> None:
        """Note that the rank begins this; what is no action of a schedule is not recorded."""
        self.open = (name, stage, micro_batch, self.device.stamp()) if name in RECORDED else None

    def end(self) -> None:
        """Note that what was begun last has ended."""
        if self.open is not None:
            self.actions.append(Stamped(*self.open, self.device.stamp()))
            self.open = None

    def read(self) -> tuple[RecordedAction, ...]:
        """Return the actions with their times on the host's monotonic clock, which all ranks of a host share."""
        self.device.synchronize()

        def moment(stamp: Any) -> float:
            return self.first_s + self.device.seconds_between(self.first, stamp)

        return tuple(
            RecordedAction(
                name=one.name,  # type: ignore[arg-type]  # begin lets no other through
                stage=one.stage,
                micro_batch=one.micro_batch,
                start_s=moment(one.begun),
                end_s=moment(one.ended),
            )
            for one in self.actions
        )
