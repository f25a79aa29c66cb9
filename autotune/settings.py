"""The table of settings: each is a key of a config file and a flag of ``autotune run``.

``config`` takes their defaults and descriptions from here, and ``cli.options`` adds what only single commands take.
Typer's signatures, the panels of ``--help`` and the manual's page of options are made from both. Nothing heavy is
imported, because ``--help`` reads it first.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.schedule_spec import SCHEDULE_NAMES

MODEL = "Model"
CANDIDATES = "Candidates"
DEVICES = "Devices"
SEARCH = "Search"
HOSTS = "Several hosts"
COMMAND = "Your training command"
STUDY = "What is kept from run to run"
OUTPUT = "Output"
REQUIRED: Any = object()  # as a default: the command does not go without


@dataclass(frozen=True)
class Option:
    """One option or argument of a command.

    ``kind`` is the type of what is typed; the config turns text such as ``8GiB`` into a number. ``default`` is what
    counts where nothing is given, and ``default_text`` says it where the value does not. ``flags`` are the spellings
    where they are not ``--name``.
    """

    name: str
    kind: Any
    help: str
    default: Any = None
    default_text: str = ""
    panel: str = OUTPUT
    metavar: str = ""
    flags: tuple[str, ...] = ()
    envvar: str = ""
    minimum: int | None = None
    is_argument: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        """The words that set it on the command line, such as ``--micro-batches``."""
        return self.flags or (f"--{self.name.replace('_', '-')}",)

    @property
    def shown_default(self) -> str:
        """The default as help prints it; empty where there is none, as of a switch."""
        if self.default_text or self.default is None or self.default is REQUIRED or isinstance(self.default, bool):
            return self.default_text
        return ",".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)

    @property
    def description(self) -> str:
        """The help, with the default."""
        return f"{self.help} [default: {self.shown_default}]" if self.shown_default else self.help

    def of(self, **changes: Any) -> "Option":
        """Return the same option as another command takes it."""
        return replace(self, **changes)


BY_DEVICE = "{} on the CPU, {} on a GPU"
SETTINGS: dict[str, Option] = {
    row.name: row
    for row in (
        # --- the model -----------------------------------------------------------------------------------------------
        Option(
            "model",
            str,
            "A model of yours instead of the built-in GPT: FILE.py:FUNCTION or MODULE:FUNCTION, whose code the ranks"
            " run, or hf:CONFIG.json. Not a key of config files: no file may name code.",
            default_text="the built-in GPT",
            panel=MODEL,
            metavar="PLACE:NAME|hf:PATH",
        ),
        Option(
            "model_args",
            str,
            "What the function of --model is called with, or what changes in the config of hf:, such as"
            " dim=512,dropout=0.",
            panel=MODEL,
            metavar="KEY=VALUE,...",
        ),
        Option(
            "peak_flops",
            str,
            "Floating-point operations per second of one device at its best, such as 312T; the report then says what"
            " share of it the model reaches (MFU).",
            panel=MODEL,
            metavar="NUMBER",
        ),
        Option("layers", int, "Transformer blocks of the model.", 48, panel=MODEL),
        Option("stages", int, "Pipeline stages, one device each.", 4, panel=MODEL),
        Option("hidden", int, "Width of the model.", default_text=BY_DEVICE.format("64", "2048"), panel=MODEL),
        Option(
            "heads",
            int,
            "Attention heads; they must divide the width.",
            default_text=BY_DEVICE.format("4", "16") + "; with --hidden at least 16 wide",
            panel=MODEL,
        ),
        Option("seq_len", int, "Tokens per sequence.", default_text=BY_DEVICE.format("32", "1024"), panel=MODEL),
        Option("vocab", int, "Tokens in the vocabulary.", default_text=BY_DEVICE.format("512", "50304"), panel=MODEL),
        Option("batch", int, "Sequences per step of one pipeline (B).", 64, panel=MODEL),
        Option(
            "data_parallel",
            int,
            "Replicas of the pipeline, each on a batch of its own, whose gradients are reduced: stages x replicas"
            " devices. Of a training command of yours, those that it starts; its figures are then of one.",
            1,
            panel=MODEL,
            minimum=1,
        ),
        Option(
            "precision",
            str,
            "What the model computes in; its weights are updated in fp32.",
            default_text=BY_DEVICE.format("fp32", "bf16"),
            panel=MODEL,
            metavar="fp32|bf16|fp16",
        ),
        Option(
            "optimizer", str, "Optimizer that steps after each batch.", "adamw", panel=MODEL, metavar="adamw|sgd|none"
        ),
        Option(
            "norm",
            str,
            "Normalisation in the blocks: layer for LayerNorm; batch for BatchNorm, which sees one micro-batch only.",
            "layer",
            panel=MODEL,
            metavar="layer|batch",
        ),
        # --- candidates ----------------------------------------------------------------------------------------------
        Option(
            "micro_batches",
            str,
            "Numbers of micro-batches (m) to consider, with commas; rows are padded where m does not divide the batch.",
            default_text="every divisor of the batch",
            panel=CANDIDATES,
            metavar="M,M,...",
        ),
        Option(
            "micro_batch_size",
            int,
            "Sequences per micro-batch (b), fixed: the batch then grows with m.",
            default_text="the batch divided by m",
            panel=CANDIDATES,
        ),
        Option(
            "min_micro_batch_size",
            int,
            "Fewest samples that batch statistics may see; for models with BatchNorm only.",
            8,
            panel=CANDIDATES,
        ),
        Option(
            "schedule",
            str,
            f"Schedules to consider, with commas, or all: {', '.join(SCHEDULE_NAMES)}. Where m < stages,"
            " GPipe stands in for 1F1B.",
            ("1F1B",),
            panel=CANDIDATES,
            metavar="NAME,...|all",
        ),
        Option(
            "split",
            str,
            "Layers of each stage, in the order of the model: 13,13,12,10, Megatron's layout Et*13|t*13|t*12|t*10L, or"
            " torchtitan's lists of module names as JSON.",
            default_text="as even as possible",
            panel=CANDIDATES,
            metavar="N,N,...",
        ),
        Option(
            "balance",
            bool,
            "Try also the cut of the layers that is predicted to be quickest within the memory limit, from layers that"
            " are measured by themselves.",
            False,
            panel=CANDIDATES,
        ),
        Option(
            "recompute",
            str,
            "Activation checkpointing: what stages compute again in the backward instead of keeping it. selective keeps"
            " matrix products and attention, full what enters a layer; auto tries all three.",
            "none",
            panel=CANDIDATES,
            metavar="none|selective|full|auto",
        ),
        Option(
            "virtual_stages",
            str,
            "Stages per rank to consider, with commas, where the schedule leaves the choice; GPipe and 1F1B have one.",
            (2,),
            panel=CANDIDATES,
            metavar="V,V,...",
        ),
        # --- devices -------------------------------------------------------------------------------------------------
        Option(
            "profile",
            Path,
            "Recorded profile that --device replay runs; of a training command, what is believed before it has run.",
            panel=DEVICES,
            metavar="FILE",
        ),
        Option(
            "device",
            str,
            "Where ranks run. auto is cuda, or cpu where there is no GPU at all; replay needs --profile.",
            "auto",
            panel=DEVICES,
            metavar="auto|cpu|cuda|replay",
        ),
        Option(
            "memory_limit",
            str,
            "Bytes that each rank may hold, such as 8GiB.",
            default_text="what the device has",
            panel=DEVICES,
            metavar="BYTES",
        ),
        Option(
            "python",
            str,
            "Python of the environment where the model runs, where that is another one; it needs torch, and nothing"
            " else. Only the command line can name it, for it is a program that runs.",
            default_text="the one that runs autotune",
            panel=DEVICES,
            metavar="PATH",
        ),
        # --- search --------------------------------------------------------------------------------------------------
        Option(
            "budget",
            str,
            "Seconds for trials, such as 120s or 5m.",
            default_text="no limit",
            panel=SEARCH,
            metavar="SECONDS",
        ),
        Option(
            "trials",
            int,
            "Most candidates to confirm by real runs.",
            default_text="no limit",
            panel=SEARCH,
        ),
        Option(
            "exhaustive",
            bool,
            "Confirm every candidate that fits, not only those that could win; end no trial early.",
            False,
            panel=SEARCH,
        ),
        Option(
            "sampler",
            str,
            "Who proposes the next candidate: cost-model, or Optuna's tpe, gp (which needs scipy), random or grid.",
            "cost-model",
            panel=SEARCH,
            metavar="NAME",
        ),
        Option(
            "objective",
            str,
            "The highest throughput, or the lowest peak memory among those within the tolerance of it.",
            "throughput",
            panel=SEARCH,
            metavar="throughput|memory",
        ),
        Option(
            "tolerance",
            str,
            "Throughputs this close count as equal, such as 5%.",
            default_text="1%; 5% with --objective memory",
            panel=SEARCH,
            metavar="PERCENT",
        ),
        Option("explore_limit", bool, "Try also what is predicted not to fit in memory.", False, panel=SEARCH),
        # --- output, and what is kept --------------------------------------------------------------------------------
        Option(
            "out",
            Path,
            "Where the report is written; the page and the profile lie beside it.",
            Path("report.json"),
            metavar="FILE",
        ),
        Option(
            "state_dir",
            Path,
            "Folder with the profiles and studies of earlier runs.",
            Path(".autotune"),
            panel=STUDY,
            metavar="FOLDER",
        ),
        Option(
            "storage",
            str,
            "Database of a study that several controllers share, such as postgresql://user@host/database.",
            default_text="SQLite in the state directory",
            panel=STUDY,
            metavar="URL",
            envvar="AUTOTUNE_STORAGE",
        ),
        Option(
            "heartbeat",
            str,
            "Seconds between signs of life in a shared study; a controller that misses three is taken for dead.",
            10.0,
            default_text="10s",
            panel=STUDY,
            metavar="SECONDS",
        ),
        Option(
            "fresh",
            bool,
            "Measure everything again instead of taking over what earlier runs measured.",
            False,
            panel=STUDY,
        ),
        Option(
            "record_timeline",
            bool,
            "Record when every action of a few real steps of the pick begins and ends; autotune timeline draws it.",
            False,
        ),
        # --- several hosts -------------------------------------------------------------------------------------------
        Option(
            "rendezvous",
            str,
            "HOST:PORT of this host, to which the workers of all ranks come; auto: the first host that Slurm or"
            " torchrun name.",
            default_text="ranks run on this host",
            panel=HOSTS,
            metavar="HOST:PORT|auto",
        ),
        Option(
            "secret_file",
            Path,
            "File with the secret that the controller and all workers share.",
            default_text="the variable AUTOTUNE_SECRET",
            panel=HOSTS,
            metavar="FILE",
        ),
        Option(
            "run_id",
            str,
            "The --rdzv-id of the workers' torchrun.",
            default_text="the number of the Slurm job, or torchrun's default",
            panel=HOSTS,
            metavar="ID",
        ),
        Option(
            "host_timeout",
            str,
            "How long to wait for a host to come, or to come back, such as 5m.",
            300.0,
            default_text="300s",
            panel=HOSTS,
            metavar="SECONDS",
        ),
        # --- a training command --------------------------------------------------------------------------------------
        Option(
            "command",
            list[str],
            "Your training command, after --; its placeholders are filled for each trial. In a config file: command.",
            default_text="the built-in GPT is tuned",
            panel=COMMAND,
            metavar="[-- COMMAND...]",
            flags=("COMMAND",),
            is_argument=True,
        ),
        Option(
            "read",
            str,
            "Format of logs: auto, megatron-lm, deepspeed, torchtitan, nanotron, automodel, paddle, lightning, hf,"
            " json, or a pattern such as 'took (?P<step_time_ms>[0-9.]+) ms'.",
            "auto",
            panel=COMMAND,
            metavar="FORMAT|PATTERN",
        ),
        Option(
            "log",
            list[str],
            "Files that the command writes its steps to, a pattern with * and **; may be given several times.",
            default_text="its output",
            panel=COMMAND,
            metavar="GLOB",
        ),
        Option(
            "set",
            list[str],
            "FILE:KEY=VALUE: each trial reads a copy of FILE (YAML, JSON, TOML) with this value, which may have"
            " placeholders; may be given several times.",
            panel=COMMAND,
            metavar="SETTING",
        ),
        Option(
            "present",
            int,
            "Micro-batches (m) that the command runs with now: measured in any case, and compared with the pick.",
            default_text="what stands in its placeholders, such as {micro_batches=8}, or in the files of --set",
            panel=COMMAND,
            metavar="M",
            minimum=1,
        ),
        Option("trial_args", str, "Words added to the command in trials, such as '--eval-iters 0'.", panel=COMMAND),
        Option("setup", str, "Shell command to run once, before the first trial.", panel=COMMAND, metavar="COMMAND"),
        Option("prepare", str, "Shell command to run before each trial.", panel=COMMAND, metavar="COMMAND"),
        Option("cleanup", str, "Shell command to run after the last trial.", panel=COMMAND, metavar="COMMAND"),
        Option(
            "start_limit",
            str,
            "How long the first step of a command may take to come, such as 20m.",
            600.0,
            default_text="600s",
            panel=COMMAND,
            metavar="SECONDS",
        ),
        Option("no_probe", bool, "Do not note steps and memory inside the command's processes.", False, panel=COMMAND),
        Option("seed", int, "Seed of weights, data and the order of trials.", 0, panel=SEARCH),
    )
}
"""The keys of a config file, each also a flag of ``autotune run``."""
