"""A candidate of a report in a launcher's own words, or why that launcher cannot run it and which one it can."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autotune.errors import UsageError
from autotune.records.prediction import Basis
from autotune.records.report import Report
from autotune.report.export.difference import difference, replicas_of
from autotune.report.export.evidence import evidence
from autotune.report.export.megatron import beside_ramp
from autotune.report.export.merge import merged, open_config, replicas_in, settings_in
from autotune.report.export.plan import Plan, by_throughput, chosen, plan_of
from autotune.report.export.render import render
from autotune.report.export.target import Target
from autotune.report.export.targets import TARGETS
from autotune.report.paper.predicted_cells import origin
from autotune.report.recommend import is_undecided, undecided_text
from autotune.report.units import show_bytes, show_certainty, show_rate


class Exported(NamedTuple):
    """``text`` for the launcher; ``notes`` for whoever starts it."""

    text: str
    notes: tuple[str, ...]


def export(
    report: Report,
    to: str,
    *,
    candidate: int | None = None,
    data_parallel: int | None = None,
    version: str | None = None,
    merge: Path | None = None,
) -> Exported:
    """Return the sweet spot, or another ``candidate``, for the launcher ``to``.

    ``data_parallel``: replicas of the pipeline, which multiply the batch; None: what the file says, or what the report
    is of, or 1. ``version``: of the launcher. ``merge``: an existing config file, which comes back with only our keys
    changed. Raise UsageError for what the launcher cannot do, InputError for a report without a sweet spot and for a
    file that cannot be read, is another launcher's, or says what no pipeline runs with.
    """
    if to not in TARGETS:
        raise UsageError(f"--to: {to!r} is not known; use one of {', '.join(TARGETS)}")
    target, index = TARGETS[to], chosen(report, candidate)
    told = replicas_of(report, data_parallel)
    if version is not None and not target.default_version:
        raise UsageError(f"--target-version: {target.title} is told the same in {target.versions}; leave it out")
    plan = plan_of(report, index, told or 1)
    if reason := target.refusal(plan):
        raise UsageError(f"{target.title} {reason} ({plan}); {nearest(report, target, plan.data_parallel)}")
    file = open_config(merge, target, plan, version) if merge is not None else None
    said: list[str] = []
    if file is not None:
        replicas, said = replicas_in(file, plan, data_parallel, told)
        plan = plan_of(report, index, replicas)
    notes = [*pick_notes(report, index), evidence(report, index), batch_text(plan), *said]
    notes += [f"for {target.title} {target.versions}".rstrip()] if target.versions else []
    notes += [words for words in (target.in_code(plan), target.untold(plan), target.cut_text(plan)) if words]
    if file is None:
        settings, left_out = beside_ramp(target.settings_of(plan, version), report.command)
        new = difference(report, settings)
        text = target.script(plan) if target.script else render(new.settings, target.form, target.call)
        return Exported(text, (*notes, *left_out, *new.notes))
    text, changed = merged(file, plan, settings_in(file, target, plan, version))
    return Exported(text, (*notes, *changed))


def batch_text(plan: Plan) -> str:
    """Return what a step of all replicas is made of."""
    return (
        f"{plan}: {plan.micro_batch_size} sequences x {plan.micro_batches} micro-batches x {plan.data_parallel}"
        f" replicas = {plan.global_batch} sequences per step"
    )


def pick_notes(report: Report, index: int) -> Iterator[str]:
    """Yield what keeps the exported candidate from being a sure choice under the limits of the report."""
    row, spot = report.candidates[index], report.sweet_spot
    if report.is_predicted:
        yield f"{row.label} is predicted, and {origin(report)}: autotune run confirms it"
    if row.prediction.basis is Basis.EXTRAPOLATED and row.measurement is None:
        yield f"micro-batches of {row.micro_batch_size} were not timed: the figures of {row.label} are extrapolated"
    if spot is not None and spot.candidate == index and is_undecided(spot):
        sure = f" ({show_certainty(spot.certainty)} sure)" if spot.certainty is not None else ""
        yield f"the report is {undecided_text(report)}{sure}; {row.label} is exported because {spot.reason}"
    if row.over_limit_bytes is not None:
        yield f"{row.label} needs {show_bytes(row.over_limit_bytes)} more than the report's memory limit"


def nearest(report: Report, target: Target, data_parallel: int) -> str:
    """Return a sentence that names the fastest candidate of the report which the launcher can run."""
    for index in by_throughput(report):
        plan = plan_of(report, index, data_parallel)
        if target.refusal(plan) is None:
            row = report.candidates[index]
            how = f"{show_rate(row.rate)} sequences/s, {'it ran' if row.measurement else 'predicted'}"
            return f"the fastest that it can run is {plan} ({how}): --candidate {index}"
    return "no candidate of this report can be run by it"
