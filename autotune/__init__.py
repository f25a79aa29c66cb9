"""autotune: measures a pipeline-parallel training job and recommends its number of micro-batches.

::

    import autotune

    report = autotune.run(autotune.Config(layers=48, stages=4))
    report.sweet_spot.micro_batches

Nothing is imported before it is used: ``import autotune`` costs nothing, and torch is loaded in no process but the
ranks' own. ``autotune guide python`` is the manual.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune import errors
    from autotune.api.functions import export, fit, load, load_profile, plan, predict, run
    from autotune.api.stage_timer import StageTimer
    from autotune.config import Config
    from autotune.errors import (
        AutotuneError,
        DeviceError,
        InputError,
        Interrupted,
        MemoryLimitError,
        Regression,
        UsageError,
    )
    from autotune.events import Event, EventKind
    from autotune.records.profile import Profile, StageProfile
    from autotune.records.report import Report
    from autotune.records.stage_costs import StageTime

__version__ = "0.1.0"
DISTRIBUTION = "pipeline-autotune"  # what pip calls us; autotune on PyPI is another project

PLACES = {
    "autotune.api.functions": ("run", "predict", "fit", "plan", "export", "load", "load_profile"),
    "autotune.api.stage_timer": ("StageTimer",),
    "autotune.config": ("Config",),
    "autotune.records.profile": ("Profile", "StageProfile"),
    "autotune.records.stage_costs": ("StageTime",),
    "autotune.records.report": ("Report",),
    "autotune.events": ("Event", "EventKind"),
    "autotune.errors": (
        "AutotuneError",
        "UsageError",
        "InputError",
        "DeviceError",
        "MemoryLimitError",
        "Regression",
        "Interrupted",
    ),
}
"""Where each name comes from, once somebody asks for it."""
HOMES = {name: place for place, names in PLACES.items() for name in names}
__all__ = [
    "AutotuneError",
    "Config",
    "DeviceError",
    "Event",
    "EventKind",
    "InputError",
    "Interrupted",
    "MemoryLimitError",
    "Profile",
    "Regression",
    "Report",
    "StageProfile",
    "StageTime",
    "StageTimer",
    "UsageError",
    "errors",
    "export",
    "fit",
    "load",
    "load_profile",
    "plan",
    "predict",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for by its name."""
    if name == "errors":
        return import_module("autotune.errors")
    if name not in HOMES:
        raise AttributeError(f"module 'autotune' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class Package(ModuleType):
    """This package, where ``predict`` and ``plan`` stay functions although folders are called so: Python would put each
    folder in the function's place once something in it is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
