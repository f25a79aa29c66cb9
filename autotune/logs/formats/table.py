"""Every format by its name, and the choice among them where the user names none."""

from collections.abc import Mapping

from autotune.errors import UsageError
from autotune.logs.formats.deepspeed import DEEPSPEED
from autotune.logs.formats.generic import JSON, pattern_format
from autotune.logs.formats.megatron import MEGATRON
from autotune.logs.formats.nanotron import NANOTRON
from autotune.logs.formats.spec import LogFormat
from autotune.logs.formats.torchtitan import TORCHTITAN
from autotune.logs.formats.trainers import AUTOMODEL_FORMAT, HF, LIGHTNING, PADDLE_FORMAT

FORMATS: Mapping[str, LogFormat] = {
    one.name: one
    for one in (MEGATRON, DEEPSPEED, TORCHTITAN, NANOTRON, AUTOMODEL_FORMAT, PADDLE_FORMAT, LIGHTNING, HF, JSON)
}
"""In the order in which they are tried: those whose lines nobody else writes first, progress bars near the end."""

AUTO = "auto"


def formats_for(name: str) -> tuple[LogFormat, ...]:
    """Return the formats that ``--read`` may mean: one that is named, a pattern, or all of them; raise UsageError for a
    pattern that is none."""
    if name == AUTO:
        return tuple(FORMATS.values())
    return (FORMATS[name] if name in FORMATS else pattern_format(checked_pattern(name)),)


def checked_pattern(text: str) -> str:
    """Return a pattern; raise UsageError for a word that was meant as the name of a format."""
    if text.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"--read: there is no format {text!r}; use auto, {', '.join(FORMATS)} or a pattern with a group"
        )
    return text
