"""The plan for a launcher: one candidate of a report, with the number of data-parallel replicas."""

from autotune.errors import InputError, UsageError
from autotune.records.job.recompute import show_modes
from autotune.records.job.split import Split, show_split
from autotune.records.job.workload import WorkloadFacts
from autotune.records.prediction import Dimensions
from autotune.records.report import Report
from autotune.schedule_spec import ScheduleName
from autotune.workload.partition import layers_per_stage


class Plan(Dimensions):
    """A candidate as a launcher needs it.

    Every launcher holds ``global_batch`` = micro-batch size x m x data-parallel replicas sequences per step.
    """

    stages: int
    padding: int
    data_parallel: int
    workload: WorkloadFacts

    @property
    def layers_by_stage(self) -> Split | None:
        """The layers of each stage as they were measured; None where the report does not know how many there are."""
        layers, stages = self.workload.layers, self.stages * self.virtual_stages
        return self.split or (layers_per_stage(layers, stages) if layers is not None else None)

    @property
    def replica_batch(self) -> int:
        """Sequences per step of one data-parallel replica."""
        return self.micro_batches * self.micro_batch_size

    @property
    def global_batch(self) -> int:
        """Sequences per step of all replicas."""
        return self.replica_batch * self.data_parallel

    @property
    def other_schedule(self) -> ScheduleName:
        """1F1B where GPipe only stood in for it: torch's 1F1B refuses m < stages, that of most launchers does not."""
        return "1F1B" if self.schedule == "GPipe" and self.micro_batches < self.stages else self.schedule

    def __str__(self) -> str:
        several = f", {self.virtual_stages} stages per rank" if self.virtual_stages > 1 else ""
        cut = f", layers cut {show_split(self.split)}" if self.split else ""
        again = f", recompute {show_modes(self.recompute)}" if self.recompute else ""
        return f"m = {self.micro_batches} of {self.schedule}{several}{cut}{again}"


def plan_of(report: Report, candidate: int, data_parallel: int) -> Plan:
    """Return the plan of a candidate by its index in the report."""
    row = report.candidates[candidate]
    return Plan(
        **row.dimensions,
        stages=report.profile.ranks,
        padding=row.padding,
        data_parallel=data_parallel,
        workload=report.workload,
    )


def chosen(report: Report, candidate: int | None) -> int:
    """Return the index to export: ``candidate``, or the sweet spot. Raises UsageError or InputError where there is
    none."""
    if candidate is not None:
        if not 0 <= candidate < len(report.candidates):
            raise UsageError(f"--candidate: the report has 0 to {len(report.candidates) - 1} (given: {candidate})")
        return candidate
    if report.sweet_spot is None:
        raise InputError(
            f"the report is {report.status} and names no sweet spot; run autotune run to its end, or give --candidate"
        )
    return report.sweet_spot.candidate


def by_throughput(report: Report) -> list[int]:
    """Return the candidates that ran or could run under the limits in force, the fastest first."""
    rows = [index for index, row in enumerate(report.candidates) if row.may_win]
    return sorted(rows, key=lambda index: report.candidates[index].rate, reverse=True)
