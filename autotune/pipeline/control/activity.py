"""The activity of a rank, in a file that the controller can still read when the rank has died or hangs.

A few bytes of a page that lies in memory; writing them takes less than a microsecond.
"""

import mmap
from contextlib import suppress
from functools import partial
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from autotune.pipeline.rank.recording import Recording
    from autotune.pipeline.rank.trail import Trail

FORM = Struct("<3i?")  # which of WORK (-1: none), stage, micro-batch (-1: none), has it ended?
PAGE = 2 * FORM.size  # what the CPU is doing, and then what the device is

NOTHING = 2 * FORM.pack(-1, -1, -1, False)

WORK = {
    "start": "starting",
    "describe": "describing its stages",
    "build": "building its stages",
    "time_stages": "timing its stages",
    "measure_memory": "measuring the memory of its stages",
    "measure_layers": "measuring layers by themselves",
    "time_optimizer": "timing the optimizer",
    "ping": "measuring a link",
    "exchange": "measuring all links at once",
    "reduce": "measuring the reduction of gradients",
    "prepare": "preparing a trial",
    "step": "beginning a step",
    "forward": "the forward",
    "backward": "the backward",
    "input_gradient": "the backward for the input",
    "weight_gradient": "the backward for the weights",
    "reduction": "the reduction of gradients",
    "optimizer": "the optimizer step",
}
NAMES = tuple(WORK)


class Action(NamedTuple):
    """The present or last action of a rank; ``stage`` and ``micro_batch`` are None where it is about none."""

    name: str
    stage: int | None
    micro_batch: int | None
    has_ended: bool

    @property
    def page(self) -> bytes:
        """The bytes that it is written as."""
        stage, micro_batch = (-1 if number is None else number for number in (self.stage, self.micro_batch))
        return FORM.pack(NAMES.index(self.name), stage, micro_batch, self.has_ended)

    def __str__(self) -> str:
        """``the forward of micro-batch 3 on stage 1``, or what comes after it."""
        return f"waiting after {self.phrase}" if self.has_ended else self.phrase

    @property
    def phrase(self) -> str:
        """The action's name, with micro-batch and stage, whether or not it has ended."""
        work = WORK[self.name]
        return work if self.micro_batch is None else f"{work} of micro-batch {self.micro_batch} on stage {self.stage}"


class Activity(NamedTuple):
    """The action that a rank is really in; ``ahead``: to which its CPU has gone on meanwhile, where its device runs
    behind."""

    action: Action
    ahead: Action | None = None


class ActivityWriter:
    """The rank's side of the file. Actions do not nest: one begins when the last has ended, or in its midst.

    ``recording`` is told as well, while a step is recorded. ``trail``: of a device that runs behind the CPU.
    """

    recording: "Recording | None" = None
    trail: "Trail | None" = None

    def __init__(self, path: Path) -> None:
        path.write_bytes(NOTHING)  # a page of its own on the disk, before anything is written to memory
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), PAGE)
        self.action = Action("start", None, None, False)
        self.begin("start")

    def begin(self, name: str, stage: int = -1, micro_batch: int = -1) -> None:
        """Note that the rank begins this."""
        self._turn_to(Action(name, known(stage), known(micro_batch), False))
        if self.recording is not None:
            self.recording.begin(name, stage, micro_batch)

    def end(self) -> None:
        """Note that what was begun last has ended."""
        self._turn_to(self.action._replace(has_ended=True))
        if self.recording is not None:
            self.recording.end()

    def now(self, is_late: bool) -> Activity:
        """Return what the rank is doing, for itself; ``is_late``: where its device is, and not its CPU."""
        if not is_late:
            return Activity(self.action)
        if self.trail is not None:
            with suppress(RuntimeError):  # the device has failed, and says no more
                self.trail.catch_up()
        return read(self.page[:])

    def _turn_to(self, action: Action) -> None:
        self.action = action
        self.page[: FORM.size] = action.page
        if self.trail is not None:
            self.trail.mark(partial(self._device_turns_to, action.page))

    def _device_turns_to(self, page: bytes) -> None:
        self.page[FORM.size :] = page


def unpacked(page: bytes) -> Action | None:
    """Return the action that is written there."""
    number, stage, micro_batch, has_ended = FORM.unpack(page)
    return None if number < 0 else Action(NAMES[number], known(stage), known(micro_batch), has_ended)


def known(number: int) -> int | None:
    """Return a number as it is written: negative where there is none."""
    return None if number < 0 else number


def read(page: bytes) -> Activity:
    """Return what is written there of a rank: where its device is, if that runs behind, else where its CPU is."""
    cpu, device = unpacked(page[: FORM.size]), unpacked(page[FORM.size :])
    assert cpu is not None
    return Activity(cpu) if device in (None, cpu) else Activity(device or cpu, cpu)


def last_activity(path: Path) -> Activity | None:
    """Return what a rank was doing when it died, or does now; None where it never began."""
    page = path.read_bytes() if path.exists() else b""
    return read(page) if len(page) == PAGE and unpacked(page[: FORM.size]) is not None else None
