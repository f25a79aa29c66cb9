"""What the server loads that ranks are forked from; importing this module does it.

Loading torch makes many objects and hardly any garbage: a fifth of the time would go into looking for it. In the
ranks, what was loaded is never looked at again.
"""

import gc
from importlib import import_module


def load() -> None:
    """Loads all that a rank needs, with the garbage collector off."""
    gc.disable()
    try:
        import_module("autotune.pipeline.worker")
    finally:
        gc.freeze()
        gc.enable()


load()
