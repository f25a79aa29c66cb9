"""What the commands do, as functions: records in, records out. Heavy parts are imported when a function is called."""

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from autotune.config import Config, load_config
from autotune.errors import UsageError
from autotune.events import Called, Hear, Silent
from autotune.records.profile import Profile
from autotune.records.report import Report
from autotune.report.export.export import Exported
from autotune.report.load import read_report
from autotune.report.timeline.step import read_source

Name = str | PathLike[str]
"""A path, or a name that ships with autotune."""


def run(config: Config | Name, on_event: Hear | None = None) -> Report:
    """Profile, predict and search, as ``autotune run`` does; return the report that is also at ``config.out``, with the
    page and the profile beside it.

    ``config``: a Config, or a TOML file or the name of one that ships. ``on_event``: called with each Event; what was
    warned of is also in ``report.warnings``. Ranks are processes of their own, under ``config.python``; this one loads
    no torch. Raises InputError or UsageError for what is asked for, DeviceError where no candidate ran,
    MemoryLimitError where none fits, Interrupted after Ctrl-C; what was measured by then is on disk.
    """
    from autotune.pipeline.control.starting import start_early

    settled = config if isinstance(config, Config) else load_config(Path(config), {})
    start_early(settled)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # of Optuna's progress bar, which is not shown
        from autotune.tune import tune

    return tune(settled, Silent() if on_event is None else Called(on_event))


def predict(
    profile: Profile | Report | Name,
    *,
    batch: int | None = None,
    micro_batches: Sequence[int] | None = None,
    micro_batch_size: int | None = None,
    schedule: str | Sequence[str] | None = None,
    virtual_stages: int | None = None,
    memory_limit: int | str | None = None,
    stages: int | None = None,
    link: float | str | None = None,
    speed_up: float | None = None,
) -> Report:
    """Predict every candidate of a profile, as ``autotune predict`` does; nothing is measured.

    What is None follows from the profile. ``memory_limit``: bytes per rank, or text such as "40GB". What if: ``stages``
    ranks, links of ``link`` bytes per second (or "25GB/s"), devices that compute ``speed_up`` times as fast. Raises
    InputError for a file, UsageError for arguments that do not agree.
    """
    from autotune.report.paper.whatif import case_report, question_of

    rate = f"{link:f}B/s" if isinstance(link, int | float) else link
    asked = {"batch": batch, "memory_limit": memory_limit, "stages": stages, "link": rate, "speed_up": speed_up}
    question = question_of({name: None if value is None else str(value) for name, value in asked.items()})
    if question.is_range:
        raise UsageError("predict takes one value of each circumstance; call it once for each, or use autotune predict")
    (case,) = question.cases
    flags = {
        "batch": batch,
        "micro_batches": micro_batches,
        "micro_batch_size": micro_batch_size,
        "schedule": schedule,
        "virtual_stages": virtual_stages,
        "memory_limit": memory_limit,
    }
    return case_report(profile_in(profile), case, flags)


def fit(
    runs: Name | Sequence[Name],
    *,
    read: str = "auto",
    stages: int | None = None,
    batch: int | None = None,
    data_parallel: int | None = None,
    micro_batches: Sequence[int] | None = None,
    micro_batch_size: int | None = None,
    schedule: str | Sequence[str] | None = None,
    virtual_stages: int | Sequence[int] | None = None,
    memory_limit: int | str | None = None,
) -> Report:
    """Learn the step time over m from logs or CSV files of real runs, as ``autotune fit`` does; its profile is the
    report's ``profile``.

    ``read``: the format of logs, or a pattern. What is None is what the runs say. Raises InputError for a file,
    UsageError for arguments that do not agree.
    """
    from autotune.tuning.learned import Asked, learned_report

    paths = [runs] if isinstance(runs, str | PathLike) else runs
    asked = Asked(
        stages=stages,
        batch=batch,
        data_parallel=data_parallel,
        micro_batches=micro_batches,
        micro_batch_size=micro_batch_size,
        schedule=schedule,
        virtual_stages=virtual_stages,
        memory_limit=memory_limit,
    )
    return learned_report([Path(path) for path in paths], read, asked)


def plan(
    device_spec: Name,
    config: Config | None = None,
    *,
    model: Name | None = None,
    network: Name | None = None,
    devices: int | None = None,
    global_batch_size: int | None = None,
    tensor_parallel: int | None = None,
    data_parallel: int | None = None,
    sequence_parallel: bool = False,
    recompute: str | None = None,
    attention: str = "flash",
    runtime: str = "torch",
    replicated_optimizer: bool = False,
) -> Report:
    """Estimate throughput and memory on devices that are not here, as ``autotune plan`` does, and with ``devices`` the
    best layout of so many.

    ``device_spec``, ``model`` and ``network``: TOML files, or names that ship, such as "h100", "llama-70b" and
    "dgx-h100". ``config``: sizes, batch and candidates. Raises InputError for a file, UsageError for arguments that do
    not agree, MemoryLimitError where no layout fits.
    """
    from autotune.report.paper.plan import Flags, plan_report

    flags = Flags(
        device_spec=Path(device_spec),
        settings=config.model_dump(exclude_unset=True) if config is not None else {},
        model=Path(model) if model is not None else None,
        network=Path(network) if network is not None else None,
        devices=devices,
        global_batch_size=global_batch_size,
        tensor_parallel=tensor_parallel,
        data_parallel=data_parallel,
        sequence_parallel=sequence_parallel,
        recompute=recompute,
        attention=attention,
        runtime=runtime,
        replicated_optimizer=replicated_optimizer,
    )
    return plan_report(flags)


def export(
    report: Report | Name,
    to: str,
    *,
    candidate: int | None = None,
    data_parallel: int | None = None,
    target_version: str | None = None,
    merge: Name | None = None,
) -> Exported:
    """Return what a launcher must be told, as ``autotune export`` does: its ``text``, and ``notes`` for whoever starts
    it.

    ``candidate``: another one than the sweet spot, by its index. ``data_parallel``: replicas, which multiply the batch;
    None: what the file says, or 1. ``target_version``: of the launcher. ``merge``: its config file, which comes back
    with only these keys changed. Raises UsageError for what the launcher cannot do, InputError for a report without a
    sweet spot and for a file.
    """
    from autotune.report.export.export import export as settings_for

    return settings_for(
        report if isinstance(report, Report) else load(report),
        to,
        candidate=candidate,
        data_parallel=data_parallel,
        version=target_version,
        merge=Path(merge) if merge is not None else None,
    )


def load(path: Name) -> Report:
    """Read a report.json, or what ``predict``, ``fit`` or ``plan`` wrote. Raises InputError, with path and field, for
    any other file; ``sweet_spot`` is None where there is none."""
    return read_report(Path(path))


def load_profile(path: Name) -> Profile:
    """Read a profile.json, measured or written by hand, or the profile in a report. Raises InputError, with path and
    field, for any other file."""
    return read_source(Path(path))[1][0]


def profile_in(source: Profile | Report | Name) -> Profile:
    """Return the profile that is meant."""
    if isinstance(source, Profile):
        return source
    return source.profile if isinstance(source, Report) else load_profile(source)
