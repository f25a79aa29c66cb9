"""The progress of a device in the work that its rank has asked for: a GPU runs behind the CPU, which is soon done
asking.

::

    CPU     forward 0   forward 1   ...   the optimizer step   waits for the device
    device     forward 0 ------------------->|  forward 1 ...          here it really is
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from autotune.pipeline.device.device import Device

POLL_S = 0.1  # between two checks, made by a thread because the CPU may wait for the device anywhere


class Trail:
    """Points of the device's work that it has not come to yet, each with what to ``tell`` when it has."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.ahead: deque[tuple[Any, Callable[[], None]]] = deque()
        self.lock = threading.Lock()
        threading.Thread(target=self._follow, daemon=True, name="follow device").start()

    def mark(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` soon after the device has come past all that it has been asked for until now."""
        self.ahead.append((self.device.mark(), tell))

    def catch_up(self) -> None:
        """Tell of every point that the device has come past."""
        with self.lock:
            while self.ahead and self.device.has_passed(self.ahead[0][0]):
                self.ahead.popleft()[1]()

    def _follow(self) -> None:
        self.device.use()
        while True:
            time.sleep(POLL_S)
            try:
                self.catch_up()
            except RuntimeError:
                return  # after an error of CUDA nothing can be asked any more; what was told last stands
