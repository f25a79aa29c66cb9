"""What each command takes: settings, which are keys of a config file as well, and options and arguments of its own."""

from pathlib import Path

from autotune.settings import CANDIDATES, MODEL, OUTPUT, REQUIRED, SEARCH, SETTINGS, Option

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
SIZES = settings("layers", "stages", "hidden", "heads", "seq_len", "vocab", "batch", "precision", "optimizer", "norm")
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

READ = Option(
    "read",
    str,
    "Format of logs: auto, megatron-lm, deepspeed, torchtitan, nanotron, automodel, paddle, lightning, hf, json, or a"
    " pattern such as 'took (?P<step_time_ms>[0-9.]+) ms'.",
    "auto",
    panel=PAPER,
    metavar="FORMAT|PATTERN",
)

COMMANDS: dict[str, tuple[Option, ...]] = {
    "run": (CONFIG, *SETTINGS.values(), DRY_RUN, JSON, QUIET),
    "profile": (
        CONFIG,
        *SIZES,
        *settings("micro_batches", "micro_batch_size", "device", "memory_limit"),
        *settings("rendezvous", "secret_file", "run_id", "host_timeout"),
        SETTINGS["out"].of(help="Where the profile is written.", default=Path("profile.json")),
        *settings("state_dir", "fresh", "seed"),
        TEMPLATE,
        JSON,
        QUIET,
    ),
    "worker": (
        SETTINGS["rendezvous"].of(
            help="HOST:PORT of autotune run; auto: the first host that Slurm or torchrun name.",
            default="auto",
            default_text="auto",
        ),
        *settings("secret_file", "host_timeout"),
    ),
    "predict": (
        argument("path", "PROFILE|REPORT", "A profile, measured or written by hand."),
        BATCH.of(help="Sequences per step; with commas, or LOW:HIGH, several.", kind=str, metavar="B,B|B:B"),
        *settings("micro_batches", "micro_batch_size"),
        SCHEDULES,
        VIRTUAL_STAGES,
        MEMORY_LIMIT.of(help="Memory per rank, such as 40GB; with commas, or LOW:HIGH, several."),
        Option(
            "stages",
            str,
            "What if there were so many ranks; with commas, or LOW:HIGH, several.",
            default_text=OF_PROFILE,
            panel=WHAT_IF,
            metavar="P,P|P:P",
        ),
        Option(
            "link",
            str,
            "What if every link had this bandwidth, such as 25GB/s; with commas, or LOW:HIGH, several.",
            default_text=OF_PROFILE,
            panel=WHAT_IF,
            metavar="RATE",
        ),
        Option(
            "speed_up",
            str,
            "What if devices computed so many times as fast, such as 1.3; with commas, or LOW:HIGH, several.",
            default_text="1",
            panel=WHAT_IF,
            metavar="TIMES",
        ),
        PREDICTION_OUT,
        HTML,
        JSON,
    ),
    "fit": (
        argument(
            "paths",
            "RUNS...",
            "Logs of launchers, a run each, or CSV files with a run per row: micro_batches, micro_batch_size,"
            " step_time_s and, where known, peak_memory_bytes, schedule, virtual_stages, data_parallel.",
            list[Path],
        ),
        READ,
        Option("stages", int, "Ranks of the pipeline.", default_text="what the logs say", panel=MODEL, minimum=1),
        SETTINGS["batch"].of(default=None, default_text="m times b of the runs"),
        DATA_PARALLEL.of(default=None, default_text="what the runs say, or 1", minimum=1),
        SETTINGS["micro_batches"],
        Option(
            "micro_batch_size",
            int,
            "Sequences per micro-batch (b) of a log that does not say it.",
            panel=CANDIDATES,
            minimum=1,
        ),
        SETTINGS["schedule"].of(default=None, default_text="those of the runs"),
        VIRTUAL_STAGES.of(default_text="those of the runs"),
        SETTINGS["memory_limit"].of(default_text="no limit"),
        SETTINGS["out"].of(help="Where the report is written; its profile lies beside it.", default=Path("fit.json")),
        HTML,
        JSON,
        QUIET,
    ),
    "tell": (
        argument("path", "REPORT", "A report of autotune fit."),
        Option(
            "micro_batches",
            int,
            "Micro-batches (m) of the step.",
            REQUIRED,
            panel=CANDIDATES,
            flags=("--micro-batches", "-m"),
            minimum=1,
        ),
        Option("step_time", str, "How long it took, such as 5.31 or 800ms.", REQUIRED, metavar="SECONDS"),
        Option(
            "micro_batch_size",
            int,
            "Sequences per micro-batch (b).",
            default_text="the batch divided by m",
            panel=CANDIDATES,
            minimum=1,
        ),
        ONE_SCHEDULE.of(default_text="the report's first"),
        Option("virtual_stages", int, "Stages per rank.", default_text="the report's first", panel=CANDIDATES),
        Option("peak_memory", str, "Peak memory of the fullest rank, such as 60GiB.", metavar="BYTES"),
        PREDICTION_OUT.of(help="Where the new report is written.", default_text="REPORT itself"),
        HTML,
        JSON,
        QUIET,
    ),
    "timeline": (
        argument(
            "path",
            "[PROFILE|REPORT]",
            "Where durations come from; without one every forward and backward takes one unit of time.",
            default=None,
        ),
        Option(
            "micro_batches",
            int,
            "Micro-batches (m).",
            default_text="the report's sweet spot",
            panel=CANDIDATES,
            flags=("--micro-batches", "-m"),
        ),
        ONE_SCHEDULE.of(default_text="the report's, or 1F1B"),
        Option("virtual_stages", int, "Stages per rank.", default_text=OF_PROFILE, panel=CANDIDATES),
        Option(
            "micro_batch_size",
            int,
            "Sequences per micro-batch (b).",
            default_text="the batch divided by m",
            panel=CANDIDATES,
        ),
        BATCH,
        Option("stages", int, "Pipeline stages, one device each, where no PROFILE is given.", panel=CANDIDATES),
        Option(
            "schedule_csv",
            Path,
            "Check and draw your own schedule: a row per rank, F1,F2,,B1,B2 (a column per time unit) or torch's CSV.",
            panel=CANDIDATES,
            metavar="FILE",
        ),
        Option(
            "form",
            str,
            "What is printed: text, json, or trace, which ui.perfetto.dev opens.",
            "text",
            flags=("--format",),
            metavar="text|json|trace",
        ),
        Option("out", Path, "Write to this file instead of stdout.", metavar="FILE"),
        Option("width", int, "Columns of the drawing.", default_text="the terminal's"),
    ),
    "plan": (
        CONFIG,
        Option(
            "device_spec",
            Path,
            "The device: a TOML file, or one that ships: a100-80gb, a100-40gb, h100, h200, b200, l40s.",
            REQUIRED,
            panel=PAPER,
            metavar="FILE|NAME",
        ),
        Option(
            "network",
            Path,
            "TOML file that describes hosts and links, or the name of one that ships: dgx-h100.",
            default_text="the device's own host and a NIC for each",
            panel=PAPER,
            metavar="FILE|NAME",
        ),
        Option(
            "model",
            Path,
            "The model: a TOML file, Hugging Face's config.json or its folder, or one that ships, such as llama-70b.",
            default_text="the built-in GPT",
            panel=MODEL,
            metavar="FILE|NAME",
        ),
        *settings("layers", "stages", "hidden", "heads", "seq_len", "vocab", "batch", "precision", "optimizer"),
        Option(
            "devices", int, "Look for the best layout of so many devices.", default_text="one layout only", panel=MODEL
        ),
        Option(
            "global_batch_size",
            int,
            "Sequences per step of all replicas.",
            default_text="the batch times the replicas; with --devices 4 million tokens",
            panel=MODEL,
        ),
        Option(
            "tensor_parallel",
            int,
            "Devices that share each layer (t).",
            panel=MODEL,
            default_text=ONE_OR_ANY,
        ),
        Option("data_parallel", int, "Replicas of the pipeline (d).", panel=MODEL, default_text=ONE_OR_ANY),
        Option(
            "sequence_parallel",
            bool,
            "Cut along the sequence what tensor parallelism leaves whole; with --devices always.",
            False,
            panel=MODEL,
        ),
        Option(
            "recompute",
            str,
            "What a backward computes again.",
            default_text="none; with --devices any",
            panel=MODEL,
            metavar="none|selective|full",
        ),
        Option(
            "attention",
            str,
            "How attention is computed: in tiles, or over written scores.",
            "flash",
            panel=MODEL,
            metavar="flash|scores",
        ),
        Option("replicated_optimizer", bool, "Every replica keeps the whole optimizer state.", False, panel=MODEL),
        *settings("micro_batches", "micro_batch_size", "schedule", "virtual_stages"),
        SETTINGS["memory_limit"].of(default_text="what the device has"),
        PREDICTION_OUT,
        HTML,
        JSON,
    ),
    "scale": (
        argument("path", "PROFILE|REPORT", "A profile of one host, of three stages or more."),
        Option(
            "network",
            Path,
            "TOML file that describes hosts and links, or the name of one that ships: dgx-h100.",
            REQUIRED,
            panel=PAPER,
            metavar="FILE|NAME",
        ),
        Option("stages", str, "Numbers of ranks, with commas.", "64,128,256,512,1024", panel=MODEL, metavar="P,P,..."),
        Option("layers", int, "Layers of the model.", default_text="as many on a rank as in the profile", panel=MODEL),
        Option("batch", int, "Sequences per step.", default_text="as many for a rank as in the profile", panel=MODEL),
        SETTINGS["micro_batches"].of(
            help="Numbers of micro-batches (m) to consider, with commas, such as 256,512.",
            default_text="powers of two times the ranks, refined around the best",
        ),
        SETTINGS["schedule"],
        VIRTUAL_STAGES,
        MEMORY_LIMIT,
        HTML,
        JSON,
    ),
    "ramp": (
        argument("path", "PROFILE|REPORT", "Where the times of stages come from."),
        Option(
            "rampup_batch_size",
            tuple[int, int, int],
            "The first batch, the step by which it grows, and the samples over which it does; Megatron-LM since April"
            " 2026 ignores it.",
            panel=MODEL,
            metavar="START STEP SAMPLES",
        ),
        Option(
            "step_batch_size_schedule",
            str,
            "What newer ones take: from how many samples on which batch, such as '0:16 2400K:320' (K, M, B, T).",
            panel=MODEL,
            metavar="TEXT",
        ),
        Option(
            "seq_len",
            int,
            "Tokens per sequence: the thresholds of the schedule are in tokens then.",
            default_text="they are in samples",
            panel=MODEL,
        ),
        Option("train_samples", int, "Samples of the whole training.", REQUIRED, panel=MODEL),
        Option(
            "global_batch_size",
            int,
            "The full batch, of all replicas.",
            default_text="the profile's batch times the replicas",
            panel=MODEL,
        ),
        DATA_PARALLEL.of(help="Replicas of the pipeline; they share each batch."),
        ONE_SCHEDULE.of(default_text="1F1B"),
        MEMORY_LIMIT,
        JSON,
    ),
    "show": (
        REPORT,
        Option("explain", int, "Say why M micro-batches did not win.", metavar="M"),
        HTML,
        JSON,
    ),
    "export": (
        REPORT,
        Option(
            "to",
            str,
            "The launcher: megatron-lm, megatron-bridge, nemo, deepspeed, torchtitan, nanotron, accelerate,"
            " colossalai, torch, shell or key-value.",
            REQUIRED,
            metavar="LAUNCHER",
        ),
        DATA_PARALLEL.of(help="Replicas of the pipeline; they multiply the batch.", panel=OUTPUT, minimum=1),
        Option(
            "target_version",
            str,
            "The launcher's version, such as 0.3 or main; of torchtitan, whose flags differ from version to version.",
            default_text="0.3",
            metavar="VERSION",
        ),
        Option("candidate", int, "Another candidate, by its index in the report.", default_text="the sweet spot"),
        Option("merge", Path, "A config file of the launcher, to print with only these keys changed.", metavar="FILE"),
        Option("out", Path, "Write to this file, which may be the one merged.", default_text="stdout", metavar="FILE"),
        VERIFY_ENVIRONMENT,
        QUIET.of(help="No notes on stderr."),
    ),
    "check": (
        argument("paths", "REPORT...", "The new report, or several of the same kind.", list[Path]),
        Option(
            "baseline",
            list[Path],
            "The report to compare with; may be given several times.",
            REQUIRED,
            panel=CHECKS,
            metavar="REPORT",
        ),
        Option("max_regression", str, "How much worse a figure may become.", "3%", panel=CHECKS, metavar="PERCENT"),
        VERIFY_ENVIRONMENT,
        Option(
            "markdown_file",
            Path,
            "Write the table to this file too, as Markdown.",
            flags=("--markdown",),
            metavar="FILE",
        ),
        Option(
            "junit_file",
            Path,
            "Write the verdicts to this file too, as JUnit XML.",
            flags=("--junit",),
            metavar="FILE",
        ),
        JSON,
    ),
    "doctor": (JSON,),
    "guide": (argument("topic", "[TOPIC]", "The page to print; without one, the list of pages.", str, None),),
    "schema": (argument("record", "{config,profile,report,scale}", "The file whose schema is printed.", str),),
}
"""Every command's arguments and flags, in the order of its help."""
