"""Rows of the table of options that more than one command has, and how a row is made."""

from pathlib import Path

from autotune.settings import CANDIDATES, MODEL, REQUIRED, SEARCH, SETTINGS, Option

GENERAL = "Options"  # Typer's own name of the panel that has --help
PAPER = "Source of the figures"
CHECKS = "Checks"
WHAT_IF = "What if"

CONFIG = Option(
    "config",
    Path,
    "TOML file whose keys are these flags, or the name of one that ships: cpu, a100, ci. Flags win over it.",
    panel=GENERAL,
    metavar="FILE|NAME",
)
DRY_RUN = Option("dry_run", bool, "Only say what the run would cost; nothing is run.", False, panel=SEARCH)
JSON = Option("json_output", bool, "Print JSON on stdout instead of the table.", False, flags=("--json",))
VERBOSE = Option(
    "verbose", bool, "Print all that autotune show prints, not only the answer.", False, flags=("-v", "--verbose")
)
QUIET = Option("quiet", bool, "No progress on stderr.", False)
HTML = Option("html", Path, "Write a page with plots to this file too.", metavar="FILE")
VERIFY_ENVIRONMENT = Option(
    "verify_environment",
    bool,
    "Refuse a report of other devices or other software than are here, and say what differs.",
    False,
    panel=CHECKS,
)


def argument(name: str, metavar: str, help: str, kind: object = Path, default: object = REQUIRED) -> Option:
    """Return an argument: what a command takes by its place, without a flag."""
    return Option(name, kind, help, default, metavar=metavar, is_argument=True)


def settings(*names: str) -> tuple[Option, ...]:
    """Return the settings of these names, in this order."""
    return tuple(SETTINGS[name] for name in names)


REPORT = argument("path", "REPORT", "The report.json of an earlier run.")
SIZES = settings(
    "model",
    "model_args",
    "layers",
    "stages",
    "hidden",
    "heads",
    "seq_len",
    "vocab",
    "batch",
    "data_parallel",
    "precision",
    "optimizer",
    "norm",
)
ONE_SCHEDULE = SETTINGS["schedule"].of(
    help="One schedule, by torch's name: 1F1B, GPipe, Interleaved1F1B and so on.", default=None, metavar="NAME"
)
OF_PROFILE = "the profile's"
BATCH = SETTINGS["batch"].of(default=None, default_text=OF_PROFILE, panel=CANDIDATES)
SCHEDULES = SETTINGS["schedule"].of(
    default=None, default_text="1F1B; Interleaved1F1B where the profile has several stages per rank"
)
VIRTUAL_STAGES = SETTINGS["virtual_stages"].of(default=None, default_text=OF_PROFILE)
MEMORY_LIMIT = SETTINGS["memory_limit"].of(default_text="what the profile says of its devices")
ONE_OR_ANY = "1; with --devices any"
TEMPLATE = Option("template", bool, "Print a profile to fill in, with comments, and do nothing else.", False)
PREDICTION_OUT = Option(
    "out",
    Path,
    "Write the prediction to this file too: show, export, ramp and check read it as they read a report.",
    metavar="FILE",
)
DATA_PARALLEL = Option("data_parallel", int, "Replicas of the pipeline.", 1, panel=MODEL)
