"""What a rank is doing, in a file that the controller can still read when the rank has died or hangs.

A few bytes of a page that lies in memory; writing them takes less than a microsecond.
"""

import mmap
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from autotune.pipeline.recording import Recording

FORM = Struct("<3i?")  # which of WORK, stage, micro-batch (-1: none), has it ended?

WORK = {
    "start": "starting",
    "describe": "describing its stages",
    "build": "building its stages",
    "time_stages": "timing its stages",
    "measure_memory": "measuring the memory of its stages",
    "time_optimizer": "timing the optimizer",
    "ping": "measuring a link",
    "exchange": "measuring all links at once",
    "prepare": "preparing a trial",
    "step": "beginning a step",
    "forward": "the forward",
    "backward": "the backward",
    "input_gradient": "the backward for the input",
    "weight_gradient": "the backward for the weights",
    "optimizer": "the optimizer step",
}
NAMES = tuple(WORK)


class Action(NamedTuple):
    """What a rank is doing, or did last; ``stage`` and ``micro_batch`` are None where it is about none."""

    name: str
    stage: int | None
    micro_batch: int | None
    has_ended: bool

    def __str__(self) -> str:
        """``the forward of micro-batch 3 on stage 1``, or what comes after it."""
        words = WORK[self.name]
        if self.micro_batch is not None:
            words += f" of micro-batch {self.micro_batch} on stage {self.stage}"
        return f"waiting after {words}" if self.has_ended else words


class Watch:
    """The rank's side. Actions do not nest: one begins when the last has ended, or in its midst.

    ``recording``: who is told as well, while a step is recorded.
    """

    recording: "Recording | None" = None

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(FORM.size))  # a page of its own on the disk, before anything is written to memory
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), FORM.size)
        self.begin("start")

    def begin(self, name: str, stage: int = -1, micro_batch: int = -1) -> None:
        """The rank turns to this."""
        FORM.pack_into(self.page, 0, NAMES.index(name), stage, micro_batch, False)
        if self.recording is not None:
            self.recording.begin(name, stage, micro_batch)

    def end(self) -> None:
        """It has done what it began last."""
        self.page[FORM.size - 1] = True
        if self.recording is not None:
            self.recording.end()

    @property
    def action(self) -> Action:
        """What it is doing."""
        return unpacked(self.page[:])


def unpacked(page: bytes) -> Action:
    """The action that is written there."""
    number, stage, micro_batch, has_ended = FORM.unpack(page)
    return Action(NAMES[number], None if stage < 0 else stage, None if micro_batch < 0 else micro_batch, has_ended)


def last_action(path: Path) -> Action | None:
    """What a rank was doing when it died, or does now; None where it never began."""
    page = path.read_bytes() if path.exists() else b""
    return unpacked(page) if len(page) == FORM.size else None
