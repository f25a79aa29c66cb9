"""``autotune ramp``: m in each phase of a batch ramp, and the micro-batch size that serves all phases best."""

from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.config import load_config
from autotune.errors import UsageError
from autotune.plan.ramp import BatchSteps, Ramp, RampPlan, SizePlan, parse_schedule, plan_ramp
from autotune.predict.sweep import memory_per_rank
from autotune.records.base import SCHEMA_VERSION
from autotune.records.prediction import Basis
from autotune.records.profile import Profile
from autotune.report.timeline.step import read_source
from autotune.schedule_spec import default_schedule

IGNORED = "Megatron-LM since April 2026 (532ad926b4) ignores --rampup-batch-size; there give --step-batch-size-schedule"
MOST_ROWS = 24  # of phases on the terminal; --json has them all


class Flags(NamedTuple):
    """As the user gave them; None: not given."""

    train_samples: int
    data_parallel: int
    rampup_batch_size: tuple[int, int, int] | None = None
    step_batch_size_schedule: str | None = None
    seq_len: int | None = None
    global_batch_size: int | None = None


def asked_for(flags: Flags, profile: Profile) -> Ramp | BatchSteps:
    """Return the ramp of the flags, in Megatron's old form or its new one; raise UsageError for neither or both."""
    if (flags.rampup_batch_size is None) == (flags.step_batch_size_schedule is None):
        raise UsageError("ramp: give --rampup-batch-size START STEP SAMPLES, or --step-batch-size-schedule TEXT")
    numbers = (flags.train_samples, flags.data_parallel, flags.seq_len or 1, flags.global_batch_size or 1)
    if min(*numbers, *(flags.rampup_batch_size or (1,))) < 1:
        raise UsageError(
            "--rampup-batch-size, --global-batch-size, --train-samples, --data-parallel, --seq-len: give numbers of 1"
            " or more"
        )
    if flags.step_batch_size_schedule is not None:
        entries = parse_schedule(flags.step_batch_size_schedule, flags.seq_len)
        if flags.global_batch_size not in (None, entries[-1][1]):
            raise UsageError(
                f"--global-batch-size: the schedule ends with {entries[-1][1]} (given: {flags.global_batch_size});"
                " leave it out"
            )
        return BatchSteps(entries, flags.train_samples, flags.data_parallel)
    assert flags.rampup_batch_size is not None, "one of the two is given"
    full = flags.global_batch_size or (profile.workload.batch or 0) * flags.data_parallel
    if not full:
        raise UsageError("--global-batch-size: the profile does not say its batch; give it")
    return Ramp(*flags.rampup_batch_size, full, flags.train_samples, flags.data_parallel)


def plan_of(path: Path, flags: Flags, schedule: str | None, memory_limit: str | None) -> RampPlan:
    """Return the plan for Megatron's own arguments; without a global batch the profile's. Raises UsageError,
    InputError."""
    profile = read_source(path)[1][0]
    ramp = asked_for(flags, profile)
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
    names = (f"b = {one.micro_batch_size}{' ?' if is_extrapolated(one) else ''}" for one in plan.sizes)
    for name in ("global batch", "steps", "samples", *names):
        table.add_column(name, justify="right", no_wrap=True)
    best = plan.sizes[0]
    rows = list(zip(*(one.phases for one in plan.sizes), strict=True))
    for phases in rows if len(rows) <= MOST_ROWS else (*rows[: MOST_ROWS - 1], rows[-1]):
        counts = [f"{phase.micro_batches}{' !' if phase.fits is False else ''}" for phase in phases]
        table.add_row(str(phases[0].global_batch), str(phases[0].steps), f"{phases[0].samples:.0f}", *counts)
    hours = [f"{one.seconds / best.seconds:.3f}x" if one is not best else "1" for one in plan.sizes]
    table.add_section()
    table.add_row("training time", "", "", *hours)
    spans = [f"{one.seconds_low / best.seconds:.2f} to {one.seconds_high / best.seconds:.2f}" for one in plan.sizes]
    table.add_row("90% interval", "", "", *spans)
    console.print(table)
    for text in plan.left_out:
        console.print(f"left out: {text}", soft_wrap=True, highlight=False, markup=False)
    if any(phase.fits is False for one in plan.sizes for phase in one.phases):
        console.print("! does not fit in memory")
    if any(map(is_extrapolated, plan.sizes)):
        console.print("? was not timed: extrapolated from other micro-batch sizes, and never called the best")
    console.print(conclusion(best), soft_wrap=True, highlight=False)


def is_extrapolated(plan: SizePlan) -> bool:
    """Return whether the times of a micro-batch size are extrapolated."""
    return plan.basis is Basis.EXTRAPOLATED


def conclusion(best: SizePlan) -> str:
    """Return the best size in one sentence, or that none was timed."""
    if is_extrapolated(best):
        return "No micro-batch size that serves all phases was timed, so none is called the best; time one of them."
    return (
        f"Micro-batches of {best.micro_batch_size} serve all phases best: {best.seconds / 3600:.2f} h predicted"
        f" ({best.seconds_low / 3600:.2f} to {best.seconds_high / 3600:.2f}) for"
        f" {sum(phase.samples for phase in best.phases):.0f} samples."
    )
