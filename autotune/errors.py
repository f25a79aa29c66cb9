"""Why a run stops, one class per exit code.

::

    AutotuneError            exit 1   never raised itself; a bug shows as a traceback, also 1
    |-- UsageError           exit 2   the command line is at fault
    |-- InputError           exit 3   a config, profile, report or model is at fault
    |-- DeviceError          exit 4   devices or ranks failed
    |-- MemoryLimitError     exit 5   no candidate fits in memory
    |-- Regression           exit 6   check found that something has become worse
    `-- Interrupted          exit 130 Ctrl-C; what was measured is on disk

A candidate that fails is not an exception: it is a ``Failure`` record in the report. Messages are one line that gives
the value, the rule and the remedy.
"""

from typing import ClassVar


class AutotuneError(Exception):
    """Base of everything that ends a run on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(AutotuneError):
    """The command line is at fault."""

    exit_code = 2


class InputError(AutotuneError):
    """A config, profile, report or model is at fault."""

    exit_code = 3


class DeviceError(AutotuneError):
    """Devices or ranks failed."""

    exit_code = 4


class MemoryLimitError(AutotuneError):
    """No candidate fits in memory."""

    exit_code = 5


class Regression(AutotuneError):
    """``check`` found that something has become worse."""

    exit_code = 6


class Interrupted(AutotuneError):
    """Interrupted by Ctrl-C or SIGTERM; what was measured is on disk."""

    exit_code = 130
