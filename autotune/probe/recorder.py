"""What a rank of a training command notes after each of its steps, a line of JSON each.

Loaded into processes that are not autotune's: it imports nothing but the standard library, never raises, and stops
noting at the first thing that goes wrong. ::

    {"rank": 0, "step": 7, "t": 8123.45, "resident": .., "allocated": 1073741824, "reserved": 1258291200, "retries": 0}

``t`` is the host's monotonic clock, which all processes of a host share. On a GPU it is the moment at which the device
came to the end of the step, from events that nobody waits for; so a line may come a step late.
"""

import json
import os
import resource
import sys
import time
from collections import deque
from typing import Any

FOLDER = "AUTOTUNE_TRIAL_DIR"
"""Variable that names the folder in which steps are noted; where it is not set, none are."""
SWITCH = "AUTOTUNE_PROBE"
"""Variable that keeps steps from being noted where it is ``off``."""
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
OTHERS_AT_MOST = 3  # steps of other optimizers in a row, after which the one that counts has gone
WAITING_AT_MOST = 64  # steps that wait for the device


class Recorder:
    """Notes the steps of this process in the ``folder`` of the trial."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.file: Any = None
        self.steps = 0
        self.chief: int | None = None  # the optimizer whose steps count
        self.others = 0
        self.is_explicit = False
        self.is_broken = False
        self.waiting: deque[tuple[int, Any, dict[str, int]]] = deque()
        self.begin: tuple[Any, float] | None = None  # an event, and the host's clock when the device had reached it

    def optimizer_stepped(self, optimizer: object) -> None:
        """Note a step where this optimizer is the one that counts; so a step of several optimizers is one."""
        if self.is_explicit:
            return
        if self.chief is None or self.others >= OTHERS_AT_MOST:
            self.chief, self.others = id(optimizer), 0
        if id(optimizer) != self.chief:
            self.others += 1
            return
        self.others = 0
        self.step()

    def step(self) -> None:
        """Note the end of a step; after the first thing that goes wrong nothing more is noted."""
        if self.is_broken:
            return
        try:
            self.steps += 1
            self._note()
        except Exception:  # whatever it is, the training must go on
            self.is_broken = True

    def _note(self) -> None:
        cuda = _cuda()
        if cuda is None:
            self._write(self.steps, time.monotonic(), {})
            return
        event = cuda.Event(enable_timing=True)
        event.record()
        if self.begin is None:
            event.synchronize()
            self.begin = (event, time.monotonic())
        stats = cuda.memory_stats()
        held = {
            "allocated": stats.get("allocated_bytes.all.peak", 0),
            "reserved": stats.get("reserved_bytes.all.peak", 0),
            "retries": stats.get("num_alloc_retries", 0),
        }
        self.waiting.append((self.steps, event, held))
        first, moment = self.begin
        while self.waiting and (self.waiting[0][1].query() or len(self.waiting) > WAITING_AT_MOST):
            number, reached, memory = self.waiting.popleft()
            reached.synchronize()
            self._write(number, moment + first.elapsed_time(reached) / 1e3, memory)

    def _write(self, number: int, moment: float, memory: dict[str, int]) -> None:
        rank = _rank()
        if self.file is None:
            path = os.path.join(self.folder, f"steps-{rank}-{os.getpid()}.jsonl")
            self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  open as long as the process
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = {"rank": rank, "step": number, "t": moment, "resident": resident, **memory}
        self.file.write(json.dumps(line) + "\n")


def _cuda() -> Any:
    """torch.cuda where this process computes on a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda


def _rank() -> int:
    """This process's rank: by torch.distributed, else by the launcher's environment, else 0."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0)


def new_recorder() -> Recorder | None:
    """Return a recorder for this process; None where nothing is to be noted."""
    folder = os.environ.get(FOLDER)
    if not folder or os.environ.get(SWITCH, "").lower() == "off":
        return None
    return Recorder(folder)
