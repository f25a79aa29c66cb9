"""What a user's training command runs with now, before it is tuned. Only ever shown and compared; a command is run from
the command line or a config file alone."""

from pydantic import PositiveInt

from autotune.records.base import Record


class FileValue(Record):
    """A value that ``--set`` gives to a key of a file which the command reads, and the one that is there now."""

    file: str
    """The file."""
    key: str
    """The key, with dots between its parts."""
    template: str
    """The value in trials, with its placeholders."""
    present: str | None = None
    """The value in the file, as JSON; null where the file has no such key."""


class CommandFacts(Record):
    """The command, the values of its files, and how many micro-batches it runs with now."""

    words: tuple[str, ...]
    """The command, with its placeholders."""
    file_values: tuple[FileValue, ...] = ()
    """What ``--set`` changes in its files."""
    data_parallel: PositiveInt = 1
    """Replicas of the pipeline that it starts."""
    micro_batches: PositiveInt | None = None
    """Micro-batches per step (m) that it runs with now; null where nothing says that."""
