"""Everything that the server loads from which ranks are forked; importing this module does it.

Loading torch makes many objects and hardly any garbage: a fifth of the time would go into looking for it. In the
ranks, what was loaded is never looked at again.
"""

import atexit
import gc
import os
import shutil
from importlib import import_module


def load() -> None:
    """Load all that a rank needs, with the garbage collector off."""
    gc.disable()
    try:
        import_module("autotune.pipeline.rank.rank")
    finally:
        gc.freeze()
        gc.enable()


def clean_up() -> None:
    """Remove the folders when the last process that used this server has ended: a killed controller could not.

    Ranks, which are forks of this process, end without coming here. Nothing else is left to do, and taking all modules
    down would keep whoever waits for the end of our output.
    """
    for name in ("AUTOTUNE_FOLDER", "AUTOTUNE_SOCKETS"):
        if folder := os.environ.get(name):
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


load()
atexit.register(clean_up)
