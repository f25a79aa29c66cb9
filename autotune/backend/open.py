"""The backends: a command where one is given, else by the device that a config asks for."""

from collections.abc import Callable

from autotune.backend.command import open_command
from autotune.backend.protocol import Backend
from autotune.backend.ranks import open_ranks
from autotune.backend.replay import open_replay
from autotune.config import Config, DeviceKind
from autotune.events import Events

BACKENDS: dict[DeviceKind, Callable[[Config, Events], Backend]] = {
    "auto": open_ranks,
    "cpu": open_ranks,
    "cuda": open_ranks,
    "replay": open_replay,
}


def open_backend(config: Config, events: Events) -> Backend:
    """Return what runs this config's candidates; nothing has been started yet. Whoever opens it closes it."""
    if config.command:
        return open_command(config, events)
    return BACKENDS[config.device](config, events)
