"""One line for those who may edit their training script: ``autotune.probe.step()`` after each step.

Needed only where no optimizer of torch steps, or not once per step. Outside of a trial of ``autotune run -- COMMAND``
it does nothing.
"""

import sys
from functools import cache
from typing import Any

from autotune.probe.recorder import new_recorder


def step() -> None:
    """Note the end of a training step; from then on steps of optimizers are not noted by themselves."""
    recorder = _recorder()
    if recorder is not None:
        recorder.is_explicit = True
        recorder.step()


@cache
def _recorder() -> Any:
    """The recorder that notes steps of optimizers, or a new one; None outside of a trial."""
    loaded = sys.modules.get("_autotune_recorder")
    return loaded.here if loaded is not None else new_recorder()
