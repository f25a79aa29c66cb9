"""The first ``sitecustomize`` on the PYTHONPATH of a training command: notes the steps of every rank, changes nothing.

When, and only when, the process imports ``torch.optim.optimizer`` itself, torch's global hook after an optimizer's step
is registered. The user's own ``sitecustomize``, if there is one, is loaded afterwards as if this one were not here.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
HOOKED = "torch.optim.optimizer"
RECORDER = "_autotune_recorder"


def load(name: str, spec: ModuleSpec | None) -> Any:
    """Return the module of a spec, which is ``name`` from now on; None where there is no such module."""
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_recorder() -> Any:
    """Return this process's recorder; None where nothing is to be noted."""
    path = os.path.join(os.path.dirname(HERE), "recorder.py")
    module = load(RECORDER, importlib.util.spec_from_file_location(RECORDER, path))
    module.here = module.new_recorder()
    return module.here


class HookingFinder:
    """Finds torch's optimizers as Python would, and registers the hook when their module has been loaded."""

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return the module's own spec, whose loader registers the hook at its end; None for any other module."""
        if name != HOOKED:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute, stepped = spec.loader.exec_module, self.recorder.optimizer_stepped

        def execute_and_hook(module: ModuleType) -> None:
            execute(module)
            register = getattr(module, "register_optimizer_step_post_hook", None)
            if register is not None:
                register(lambda optimizer, *_: stepped(optimizer))

        spec.loader.exec_module = execute_and_hook  # type: ignore[method-assign]
        return spec


def load_own() -> None:
    """Load the user's own sitecustomize in place of this one."""
    elsewhere = [path for path in sys.path if os.path.abspath(path or os.curdir) != HERE]
    load("sitecustomize", PathFinder.find_spec("sitecustomize", elsewhere))


try:
    recorder = load_recorder()
    if recorder is not None:
        sys.meta_path.insert(0, HookingFinder(recorder))
except Exception:  # whatever is wrong here is no reason for a training not to begin
    sys.modules.pop(RECORDER, None)
load_own()
