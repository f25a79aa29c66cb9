"""Why a candidate is not tried."""

from enum import StrEnum

from pydantic import PositiveInt

from autotune.records.base import Record
from autotune.records.prediction import Candidate


class ExclusionReason(StrEnum):
    """Why a candidate is not tried."""

    MEMORY = "memory"  # by prediction it does not fit
    BATCH_STATISTICS = "batch_statistics"  # the model normalises over more samples than a micro-batch has
    LEANER_RAN_OUT = "leaner_ran_out"  # one that needs no more memory ran out of it


class Exclusion(Record):
    """Why a candidate is not tried. ``least``: samples that batch statistics need. ``leaner``: the candidate that ran
    out of memory."""

    reason: ExclusionReason
    least: PositiveInt | None = None
    leaner: Candidate | None = None

    @property
    def text(self) -> str:
        """The reason, as a report states it."""
        leaner = self.leaner.label if self.leaner else ""
        return {
            ExclusionReason.MEMORY: "does not fit",
            ExclusionReason.BATCH_STATISTICS: f"batch statistics need {self.least} samples",
            ExclusionReason.LEANER_RAN_OUT: f"needs as much memory as {leaner}, which ran out",
        }[self.reason]
