"""autotune: measures a pipeline-parallel training job and recommends its number of micro-batches.

::

    import autotune

    report = autotune.load("report.json")
    report.sweet_spot.micro_batches
"""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.records.report import Report

__version__ = "0.1.0"
DISTRIBUTION = "pipeline-autotune"  # what pip calls us; autotune on PyPI is another project


def load(path: "str | PathLike[str]") -> "Report":
    """Read a report.json. Loads no torch. Raises ``autotune.errors.InputError``, with path and field, for any other
    file; ``sweet_spot`` is None where a run found none."""
    from pathlib import Path

    from autotune.report.load import read_report

    return read_report(Path(path))
