"""The flags that commands share, as Typer reads them: each name is a type of a command's argument."""

from pathlib import Path
from typing import Annotated

import typer

WORKLOAD = "Workload"
HOSTS = "Several hosts"
CANDIDATES = "Candidates"
Flag = typer.Option

ConfigFile = Annotated[
    Path | None, Flag("--config", help="TOML file, or one that ships with autotune: cpu, a100, ci. Flags win over it.")
]
Layers = Annotated[int | None, Flag(help="Transformer blocks [default: 48].", rich_help_panel=WORKLOAD)]
Stages = Annotated[int | None, Flag(help="Pipeline stages, one device each [default: 4].", rich_help_panel=WORKLOAD)]
Hidden = Annotated[int | None, Flag(help="Width of the model [default: by device].", rich_help_panel=WORKLOAD)]
Heads = Annotated[int | None, Flag(help="Attention heads [default: by device].", rich_help_panel=WORKLOAD)]
SeqLen = Annotated[int | None, Flag(help="Tokens per sequence [default: by device].", rich_help_panel=WORKLOAD)]
Vocab = Annotated[int | None, Flag(help="Vocabulary [default: by device].", rich_help_panel=WORKLOAD)]
Batch = Annotated[int | None, Flag(help="Sequences per step [default: 64].", rich_help_panel=WORKLOAD)]
PrecisionFlag = Annotated[str | None, Flag("--precision", help="fp32, bf16 or fp16.", rich_help_panel=WORKLOAD)]
OptimizerFlag = Annotated[str | None, Flag("--optimizer", help="adamw, sgd or none.", rich_help_panel=WORKLOAD)]
NormFlag = Annotated[str | None, Flag("--norm", help="layer, or batch for BatchNorm.", rich_help_panel=WORKLOAD)]
MicroBatches = Annotated[
    str | None,
    Flag(help="Candidates, such as 1,2,4,8 [default: the divisors of the batch].", rich_help_panel=CANDIDATES),
]
MicroBatchSize = Annotated[int | None, Flag(help="Fix b; the batch then grows with m.", rich_help_panel=CANDIDATES)]
MinMicroBatchSize = Annotated[
    int | None, Flag(help="Fewest samples for batch statistics [default: 8].", rich_help_panel=CANDIDATES)
]
ScheduleFlag = Annotated[
    str | None,
    Flag("--schedule", help="1F1B, GPipe, Interleaved1F1B …, with commas, or all.", rich_help_panel=CANDIDATES),
]
VirtualStages = Annotated[
    str | None,
    Flag(help="Stages per rank where the schedule leaves the choice [default: 2].", rich_help_panel=CANDIDATES),
]
RecordedProfile = Annotated[Path | None, Flag("--profile", help="The recorded profile for --device replay.")]
Device = Annotated[str | None, Flag(help="auto, cpu, cuda or replay [default: auto].")]
MemoryLimit = Annotated[str | None, Flag(help="Bytes per rank, such as 8GiB [default: what the device has].")]
Budget = Annotated[str | None, Flag(help="Seconds for trials, such as 120s [default: no limit].")]
Exhaustive = Annotated[bool | None, Flag("--exhaustive", help="Confirm every candidate that fits; prune none.")]
Trials = Annotated[int | None, Flag(help="Most candidates to confirm by real runs.")]
Sampler = Annotated[
    str | None, Flag(help="Who proposes candidates: cost-model, tpe, gp, random or grid [default: cost-model].")
]
ObjectiveFlag = Annotated[
    str | None,
    Flag("--objective", help="throughput, or memory: the leanest that is fast enough [default: throughput]."),
]
Tolerance = Annotated[
    str | None, Flag(help="Throughputs this close are alike, such as 5% [default: 1%; 5% with --objective memory].")
]
ExploreLimit = Annotated[bool | None, Flag("--explore-limit", help="Try also what is predicted not to fit in memory.")]
Out = Annotated[Path | None, Flag(help="Where the result is written.")]
StateDir = Annotated[Path | None, Flag(help="Profiles and studies of earlier runs [default: .autotune].")]
Storage = Annotated[
    str | None,
    Flag(help="Database of a study that several controllers share.", envvar="AUTOTUNE_STORAGE", metavar="URL"),
]
Heartbeat = Annotated[
    str | None, Flag(help="Seconds between signs of life there; three missing ones count as death [default: 10s].")
]
Fresh = Annotated[bool | None, Flag("--fresh", help="Measure everything again.")]
RecordTimeline = Annotated[
    bool | None,
    Flag("--record-timeline", help="Record a few real steps of the pick, action by action, for autotune timeline."),
]
RendezvousFlag = Annotated[
    str | None,
    Flag(
        "--rendezvous",
        help="HOST:PORT of this host where workers come to; auto: see the README [default: ranks run here].",
        rich_help_panel=HOSTS,
    ),
]
SecretFile = Annotated[
    Path | None,
    Flag(help="File with the secret of all workers [default: AUTOTUNE_SECRET holds it].", rich_help_panel=HOSTS),
]
RunId = Annotated[str | None, Flag(help="The --rdzv-id of the workers' torchrun.", rich_help_panel=HOSTS)]
HostTimeout = Annotated[
    str | None, Flag(help="How long to wait for a host, such as 5m [default: 300s].", rich_help_panel=HOSTS)
]
Seed = Annotated[int | None, Flag(help="Seed of weights, data and order [default: 0].")]
VerifyEnvironment = Annotated[
    bool, Flag("--verify-environment", help="Refuse a report of another machine or other software than is here.")
]
Json = Annotated[bool, Flag("--json", help="Print JSON on stdout instead of the table.")]
Quiet = Annotated[bool, Flag("--quiet", help="No progress on stderr.")]
