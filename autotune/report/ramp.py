"""``autotune ramp``: m in each phase of a batch ramp, and the micro-batch size that serves all phases best."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.config import load_config
from autotune.errors import UsageError
from autotune.plan.ramp import Ramp, RampPlan, plan_ramp
from autotune.predict.sweep import memory_per_rank
from autotune.records.base import SCHEMA_VERSION
from autotune.report.timeline.step import read_source
from autotune.schedule_spec import default_schedule

MOST_ROWS = 24  # of phases on the terminal; --json has them all


def plan_of(path: Path, ramp: Ramp, schedule: str | None, memory_limit: str | None) -> RampPlan:
    """Return the plan for Megatron's own arguments; a global batch of 0 is the profile's. Raises UsageError,
    InputError."""
    if min(ramp._replace(global_batch=ramp.global_batch or 1)) < 1:
        raise UsageError(
            "--rampup-batch-size, --global-batch-size, --train-samples, --data-parallel: give numbers of 1 or more"
        )
    profile = read_source(path)[1][0]
    full = ramp.global_batch or (profile.workload.batch or 0) * ramp.data_parallel
    if not full:
        raise UsageError("--global-batch-size: the profile does not say its batch; give it")
    ramp = ramp._replace(global_batch=full)
    given = {"schedule": schedule, "memory_limit": memory_limit}
    config = load_config(None, {"layers": len(profile.stages), "stages": profile.ranks} | given)
    names = config.schedule if schedule else (default_schedule(profile.virtual_stages),)
    if len(names) != 1:
        raise UsageError(f"--schedule: give one (given: {schedule})")
    return plan_ramp(profile, ramp, names[0], config.memory_limit or memory_per_rank(profile))


def ramp_document(plan: RampPlan) -> dict[str, Any]:
    """Return what ``autotune ramp --json`` prints."""
    return {"schema_version": SCHEMA_VERSION, "kind": "autotune.ramp", **plan.model_dump(mode="json")}


def print_ramp(plan: RampPlan, console: Console) -> None:
    """Print a row for each phase, a column for each micro-batch size, the best first; the length of the
    training below."""
    table = Table(
        title="m in each phase", title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0)
    )
    for name in ("global batch", "samples", *(f"b = {one.micro_batch_size}" for one in plan.sizes)):
        table.add_column(name, justify="right", no_wrap=True)
    best = plan.sizes[0]
    rows = list(zip(*(one.phases for one in plan.sizes), strict=True))
    for phases in rows if len(rows) <= MOST_ROWS else (*rows[: MOST_ROWS - 1], rows[-1]):
        counts = [f"{phase.micro_batches}{' !' if phase.fits is False else ''}" for phase in phases]
        table.add_row(str(phases[0].global_batch), f"{phases[0].samples:.0f}", *counts)
    hours = [f"{one.seconds / best.seconds:.3f}x" if one is not best else "1" for one in plan.sizes]
    table.add_section()
    table.add_row("training time", "", *hours)
    console.print(table)
    for text in plan.left_out:
        console.print(f"left out: {text}", soft_wrap=True, highlight=False, markup=False)
    if any(phase.fits is False for one in plan.sizes for phase in one.phases):
        console.print("! does not fit in memory")
    console.print(
        f"Micro-batches of {best.micro_batch_size} serve all phases best: {best.seconds / 3600:.2f} h predicted"
        f" for {sum(phase.samples for phase in best.phases):.0f} samples.",
        soft_wrap=True,
    )
