"""The commands: parse, call, print. The heavy parts are imported inside the commands that need them."""

import gc
import os
import shlex
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune import __version__
from autotune.flags import (
    Batch,
    Budget,
    ConfigFile,
    Device,
    Exhaustive,
    ExploreLimit,
    Flag,
    Fresh,
    Heads,
    Heartbeat,
    Hidden,
    HostTimeout,
    Json,
    Layers,
    MemoryLimit,
    MicroBatches,
    MicroBatchSize,
    MinMicroBatchSize,
    NormFlag,
    ObjectiveFlag,
    OptimizerFlag,
    Out,
    PrecisionFlag,
    Quiet,
    RecordedProfile,
    RecordTimeline,
    RendezvousFlag,
    RunId,
    Sampler,
    ScheduleFlag,
    SecretFile,
    Seed,
    SeqLen,
    Stages,
    StateDir,
    Storage,
    Tolerance,
    Trials,
    VirtualStages,
    Vocab,
)
from autotune.reading import app as reading
from autotune.reading import console, print_json

app = typer.Typer(
    name="autotune",
    help="Finds how many micro-batches a pipeline-parallel training job should use, by measuring it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


OF_RUN = ("dry_run", "json_output", "quiet")  # flags that are no keys of a config file


@app.callback()
def root(
    version: Annotated[
        bool, Flag("--version", is_eager=True, help="Print the version and exit.", callback=lambda on: say_version(on))
    ] = False,
) -> None:
    """Finds how many micro-batches a pipeline-parallel training job should use, by measuring it."""


def say_version(wanted: bool) -> None:
    """Prints the version and ends the command."""
    if wanted:
        sys.stdout.write(f"autotune {__version__}\n")
        raise typer.Exit


@app.command(epilog="Example: autotune run --layers 48 --stages 4 --micro-batches 4,8,16")
def run(
    config: ConfigFile = None,
    layers: Layers = None,
    stages: Stages = None,
    hidden: Hidden = None,
    heads: Heads = None,
    seq_len: SeqLen = None,
    vocab: Vocab = None,
    batch: Batch = None,
    precision: PrecisionFlag = None,
    optimizer: OptimizerFlag = None,
    norm: NormFlag = None,
    micro_batches: MicroBatches = None,
    micro_batch_size: MicroBatchSize = None,
    min_micro_batch_size: MinMicroBatchSize = None,
    schedule: ScheduleFlag = None,
    virtual_stages: VirtualStages = None,
    profile: RecordedProfile = None,
    device: Device = None,
    memory_limit: MemoryLimit = None,
    budget: Budget = None,
    trials: Trials = None,
    exhaustive: Exhaustive = None,
    sampler: Sampler = None,
    objective: ObjectiveFlag = None,
    tolerance: Tolerance = None,
    explore_limit: ExploreLimit = None,
    record_timeline: RecordTimeline = None,
    rendezvous: RendezvousFlag = None,
    secret_file: SecretFile = None,
    run_id: RunId = None,
    host_timeout: HostTimeout = None,
    out: Out = None,
    state_dir: StateDir = None,
    storage: Storage = None,
    heartbeat: Heartbeat = None,
    fresh: Fresh = None,
    seed: Seed = None,
    dry_run: Annotated[bool, Flag("--dry-run", help="Only say what the run would cost; nothing is run.")] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Profile, predict, confirm by real runs; print the table, write report.json and profile.json."""
    flags = {name: value for name, value in locals().items() if name not in ("config", *OF_RUN)}
    from autotune.config import load_config
    from autotune.pipeline.process import load_torch

    settings = load_config(config, flags)
    if settings.rendezvous is None:
        load_torch()  # takes longest by far: on a core of its own, while ours loads the rest
    from autotune.report.progress import Progress

    with Progress(console(stderr=True), quiet) as shown:
        from autotune.forecast import forecast
        from autotune.job import Events
        from autotune.report.cost import forecast_lines
        from autotune.report.table import print_report
        from autotune.storage_url import without_credentials
        from autotune.tune import tune

        events = Events(shown.header, shown.warn, shown.progress, known=shown.known)
        if dry_run:
            found = forecast(settings, events)
        else:
            report = tune(settings, events, shlex.join(without_credentials(["autotune", *sys.argv[1:]])))
    if dry_run:
        print_json(found) if json_output else sys.stdout.writelines(f"{line}\n" for line in forecast_lines(found))
        return
    print_json(report) if json_output else print_report(report, console())


@app.command(epilog="Example: autotune profile --layers 48 --stages 4 --out profile.json")
def profile(
    config: ConfigFile = None,
    layers: Layers = None,
    stages: Stages = None,
    hidden: Hidden = None,
    heads: Heads = None,
    seq_len: SeqLen = None,
    vocab: Vocab = None,
    batch: Batch = None,
    precision: PrecisionFlag = None,
    optimizer: OptimizerFlag = None,
    norm: NormFlag = None,
    micro_batches: MicroBatches = None,
    micro_batch_size: MicroBatchSize = None,
    device: Device = None,
    memory_limit: MemoryLimit = None,
    rendezvous: RendezvousFlag = None,
    secret_file: SecretFile = None,
    run_id: RunId = None,
    host_timeout: HostTimeout = None,
    out: Out = Path("profile.json"),
    state_dir: StateDir = None,
    fresh: Fresh = None,
    seed: Seed = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Only measure the stages and links; write profile.json."""
    flags = {name: value for name, value in locals().items() if name not in ("config", "json_output", "quiet")}
    from autotune.config import load_config
    from autotune.job import Events
    from autotune.report.progress import Progress
    from autotune.tune import profile_only

    settings = load_config(config, flags)
    with Progress(console(stderr=True), quiet) as shown:
        measured = profile_only(settings, Events(shown.header, shown.warn, shown.progress))
    if json_output:
        print_json(measured)
    else:
        sys.stdout.write(f"{settings.out}: {len(measured.stages)} stages; autotune predict {settings.out} reads it\n")


@app.command(epilog="Example: torchrun --nnodes 2 --nproc-per-node 4 ... -m autotune worker --rendezvous HOST:29600")
def worker(
    rendezvous: Annotated[
        str, Flag(help="HOST:PORT of autotune run; auto: the host that torchrun or Slurm name first.")
    ] = "auto",
    secret_file: SecretFile = None,
    host_timeout: HostTimeout = None,
) -> None:
    """Keep one rank of a pipeline over several hosts, for the autotune run at the rendezvous."""
    from autotune.hosts import work

    flags = {"rendezvous": rendezvous, "secret_file": secret_file, "host_timeout": host_timeout}
    work(flags, lambda line: print(f"autotune: {line}", file=sys.stderr, flush=True))


@app.command(epilog="Example: autotune predict profile.json --batch 64 --micro-batches 4,8,16")
def predict(
    path: Annotated[Path, typer.Argument(metavar="PROFILE", help="A measured or hand-written profile.")],
    batch: Annotated[int | None, Flag(help="Sequences per step [default: the profile's].")] = None,
    micro_batches: MicroBatches = None,
    micro_batch_size: MicroBatchSize = None,
    schedule: ScheduleFlag = None,
    virtual_stages: VirtualStages = None,
    memory_limit: MemoryLimit = None,
    json_output: Json = False,
) -> None:
    """Predict throughput and memory of every candidate from a profile; nothing is measured."""
    flags = {name: value for name, value in locals().items() if name not in ("path", "json_output")}
    from autotune.predict.sweep import sweep
    from autotune.profile.record import read_profile
    from autotune.report.record import prediction_document
    from autotune.report.table import print_predictions

    pairs, missing = sweep(read_profile(path), flags)
    for text in missing:
        console(stderr=True).print(f"note: {text}", highlight=False, soft_wrap=True)
    print_json(prediction_document(pairs)) if json_output else print_predictions(pairs, console())


@app.command(
    epilog="Examples: autotune timeline profile.json -m 8 --schedule 1F1B; autotune timeline --schedule-csv mine.csv"
)
def timeline(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PROFILE|REPORT]", help="Where durations come from [default: unit times].")
    ] = None,
    micro_batches: Annotated[
        int | None, Flag("--micro-batches", "-m", help="m [default: the sweet spot of a REPORT].")
    ] = None,
    schedule: Annotated[str | None, Flag(help="1F1B, GPipe, ... [default: the report's, or 1F1B].")] = None,
    virtual_stages: Annotated[int | None, Flag(help="Stages per rank [default: the profile's].")] = None,
    micro_batch_size: Annotated[int | None, Flag(help="b [default: the batch over m].")] = None,
    batch: Annotated[int | None, Flag(help="Sequences per step [default: the profile's].")] = None,
    stages: Annotated[int | None, Flag(help="Pipeline stages, one device each, where there is no PROFILE.")] = None,
    schedule_csv: Annotated[
        Path | None,
        Flag(help="Check and draw your own: a row per GPU, F1,F2,,B1,B2 (a column per unit of time) or torch's CSV."),
    ] = None,
    form: Annotated[str, Flag("--format", help="text, json, or trace (ui.perfetto.dev opens it).")] = "text",
    out: Out = None,
    width: Annotated[int | None, Flag(help="Columns of the drawing [default: the terminal's].")] = None,
) -> None:
    """Draw a schedule with real durations, or check and draw one of your own; nothing is measured."""
    flags = {name: value for name, value in locals().items() if name not in ("form", "out", "width")}
    from autotune.report.step import Request, simulate_step
    from autotune.report.timeline import print_timeline
    from autotune.report.trace import DOCUMENTS, check_format, save_step

    check_format(form, width)
    step = simulate_step(Request(**flags))
    for text in step.notes:
        console(stderr=True).print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        sys.stdout.write(save_step(step, form, out, width))
    elif form == "text":
        print_timeline(step, console(), width)
    else:
        print_json(DOCUMENTS[form](step))


@app.command(epilog="Example: autotune schema report > report.schema.json")
def schema(
    what: Annotated[str, typer.Argument(metavar="{config,profile,report,scale}", help="Which file's schema.")],
) -> None:
    """Print the JSON Schema of a config, profile or report, or of what autotune scale --json prints."""
    from autotune.config import Config
    from autotune.errors import UsageError
    from autotune.predict.scale import ScalePlan
    from autotune.profile.record import Profile
    from autotune.records import Record
    from autotune.report.record import Report

    records: dict[str, type[Record]] = {"config": Config, "profile": Profile, "report": Report, "scale": ScalePlan}
    if what not in records:
        raise UsageError(f"there is no schema of {what!r}; use config, profile, report or scale")
    mode: Any = "validation" if what == "config" else "serialization"
    print_json(records[what].model_json_schema(by_alias=True, mode=mode))


@app.command()
def doctor(json_output: Json = False) -> None:
    """Say what is here: devices, torch, memory, and what would keep a run from working."""
    from autotune.report.doctor import examine, print_findings

    findings = examine()
    print_json(findings.model_dump()) if json_output else print_findings(findings, console())


app.add_typer(reading)


def interrupt(*_: object) -> None:
    """Ctrl-C, or SIGTERM from Slurm or Kubernetes: the first unwinds and keeps what was measured, the next ends now."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(130))
    raise KeyboardInterrupt


def main() -> None:
    """The console script: runs a command and turns what stops it into one line and an exit code."""
    from autotune.errors import AutotuneError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    # As under python -m: multiprocessing would have every rank run the console script and import all this once more.
    sys.modules["__main__"].__spec__ = ModuleSpec("autotune.__main__", None)
    try:
        app()
    except AutotuneError as error:
        sys.stderr.write(f"autotune: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("autotune: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe has gone
        sys.exit(0)
    finally:
        gc.freeze()  # all is freed with the process: looking through it for garbage first would take a quarter second
