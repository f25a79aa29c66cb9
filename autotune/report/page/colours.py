"""The colours of the page: each stands for one thing, in every chart, in the light and in the dark.

Hues tell what a thing is: green the pick, as on the terminal; red what is out of the question; grey idle time; rose
backward. Candidates, and what was measured, are drawn in the colour of the text (``INK``); other schedules than the
pick's in ``OTHERS``, told apart by the shapes of their points.
"""

from collections.abc import Iterable

from autotune.records.prediction import MemorySplit, TimeSplit

PICK = "#009e73"
OUT = "#d55e00"
INK = "ink"
"""The colour of the text, which the page's script sets: dark on light, light on dark."""
INK_HEX = "#1b1b1b"
"""What stands for it until then."""
OTHERS = "#8a8f98"
MESSAGES, REDUCTION, OPTIMIZER, OVERHEAD, IDLE = "#56b4e9", "#332288", "#7b5ea7", "#c2a387", "#d9d9d9"

PARTS = dict(
    zip(
        TimeSplit.model_fields,
        ("#5b7083", "#f0e442", "#e69f00", "#a65628", MESSAGES, "#777777", "#b4b4b4", REDUCTION, OPTIMIZER, OVERHEAD),
        strict=True,
    )
)
"""By part of a step; communication is the time that messages cost."""


def parts_of(splits: Iterable[TimeSplit]) -> list[str]:
    """Return the parts of a step that a table has a column for: the reduction only where replicas take time for it."""
    has_replicas = any(one.reduction for one in splits)
    return [part for part in PARTS if part != "reduction" or has_replicas]


MEMORY_PARTS = dict(
    zip(
        [name for name in MemorySplit.model_fields if name != "moment"],
        ("#999933", "#eedd88", MESSAGES, "#ee8866", "#bbcc33"),
        strict=True,
    )
)
ACTIONS = {"F": "#0072b2", "B": "#cc6677", "I": "#ee99aa", "W": "#882255"}
NUMBERS = {"F": "#ffffff", "B": "#ffffff", "I": "#1b1b1b", "W": "#ffffff"}
"""The colours of the micro-batch's number on them."""
