"""The program: its commands in the order of ``--help``, and what ends them."""

import gc
import os
import signal
import sys
from typing import Annotated, Any

import typer

from autotune import __version__
from autotune.cli.learned import fit, tell
from autotune.cli.measure import profile, run, worker
from autotune.cli.paper import plan, predict, ramp, scale, timeline
from autotune.cli.reference import doctor, guide, schema
from autotune.cli.reports import check, export, show
from autotune.cli.signature import add_command

app = typer.Typer(
    name="autotune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, help="Print the version and exit.", callback=lambda on: print_version(on)
        ),
    ] = False,
) -> None:
    """Find how many micro-batches a pipeline-parallel training job should use, by measuring it."""


def print_version(wanted: bool) -> None:
    """Print the version and end the command, where it is wanted."""
    if wanted:
        sys.stdout.write(f"autotune {__version__}\n")
        raise typer.Exit


MEASURE = "Measure, on the devices that are here"
PREDICT = "Predict, without devices"
REPORTS = "Use a report"
REFERENCE = "Look things up"

add_command(app, "run", run, MEASURE, "Example: autotune run --layers 48 --stages 4 --micro-batches 4,8,16")
add_command(app, "profile", profile, MEASURE, "Example: autotune profile --layers 48 --stages 4 --out profile.json")
add_command(
    app,
    "worker",
    worker,
    MEASURE,
    "Example: torchrun --nnodes 2 --nproc-per-node 4 ... -m autotune worker --rendezvous HOST:29600",
)
add_command(
    app, "predict", predict, PREDICT, "Example: autotune predict profile.json --batch 64 --micro-batches 8,16,32"
)
add_command(
    app,
    "fit",
    fit,
    PREDICT,
    "Examples: autotune fit runs.csv --stages 8 --batch 512; autotune fit m16.log m32.log --stages 8",
)
add_command(app, "tell", tell, PREDICT, "Example: autotune tell fit.json -m 16 --step-time 5.31")
add_command(
    app,
    "timeline",
    timeline,
    PREDICT,
    "Examples: autotune timeline profile.json -m 8 --schedule 1F1B; autotune timeline --schedule-csv mine.csv",
)
add_command(
    app,
    "plan",
    plan,
    PREDICT,
    "Example: autotune plan --model llama-70b --devices 64 --device-spec h100 --global-batch-size 512",
)
add_command(
    app,
    "scale",
    scale,
    PREDICT,
    "Example: autotune scale profile.json --stages 64,256,1024 --network dgx-h100 --html scale.html",
)
add_command(
    app,
    "ramp",
    ramp,
    PREDICT,
    'Example: autotune ramp report.json --step-batch-size-schedule "0:16 300K:64" --train-samples 5000000',
)
add_command(
    app,
    "show",
    show,
    REPORTS,
    "Examples: autotune show report.json; autotune show report.json --explain 32; autotune show report.json --csv",
)
add_command(app, "export", export, REPORTS, "Example: autotune export report.json --to megatron-lm --data-parallel 8")
add_command(
    app, "check", check, REPORTS, "Example: autotune check report.json --baseline baseline.json --max-regression 3%"
)
add_command(app, "doctor", doctor, REFERENCE, "Example: autotune doctor")
add_command(app, "guide", guide, REFERENCE, "Examples: autotune guide; autotune guide start")
add_command(app, "schema", schema, REFERENCE, "Example: autotune schema report > report.schema.json")


def interrupt(*_: object) -> None:
    """Unwind at the first Ctrl-C, or SIGTERM from Slurm or Kubernetes, and keep what was measured; end at the next."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(130))
    raise KeyboardInterrupt


WRONG_USAGE: Any = (
    typer.BadParameter.__base__
)  # of the parser: unknown flags, missing arguments, values of another type


def complain(message: str) -> None:
    """Write what stopped the program to stderr, in one line; the exit code still tells it where stderr takes none."""
    try:
        sys.stderr.write(f"autotune: {message}\n")
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def open_what_is_closed() -> None:
    """Give the program a stdout and a stderr that take everything, where it was started without (``>&-``)."""
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def discard(stream: Any) -> None:
    """Send what is left of a stream nowhere: it would fail once more when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def discard_what_nobody_takes() -> None:
    """Discard what is left for a pipe whose reader has gone, or for a full disk: Python would end with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            discard(stream)


def usage_message(error: Any) -> str:
    """Return in one line what the parser says is wrong, and where to find the right usage; empty after help."""
    message = error.format_message()
    if hasattr(error.__cause__, "errors"):  # Typer gives pydantic's words, which leave out the value
        from autotune.records.complaint import broken_rule

        message = message.replace(error.message, broken_rule(error.__cause__))
    message = " ".join(message.split()).rstrip(".")
    path = error.ctx.command_path if error.ctx is not None else "autotune"
    return f"{message[:1].lower()}{message[1:]}; {path} --help tells the usage" if message else ""


def main() -> None:
    """Run the command that was typed, and turn what stops it into one line and an exit code."""
    from autotune.disk import IS_FULL
    from autotune.errors import AutotuneError, InputError

    open_what_is_closed()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        found = app(prog_name="autotune", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(found)
    except AutotuneError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except WRONG_USAGE as error:
        if message := usage_message(error):
            complain(message)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except SystemExit as end:  # Rich and Typer end the program with 1 where the reader of a pipe has gone
        sys.exit(0 if isinstance(end.__context__, BrokenPipeError) else end.code)
    except OSError as error:
        if error.errno not in IS_FULL:
            raise
        complain(f"cannot write {error.filename or 'the output'}: {error.strerror}; make room there")
        sys.exit(InputError.exit_code)
    finally:
        discard_what_nobody_takes()
        gc.freeze()  # all is freed with the process: looking through it for garbage first would take a quarter second
