"""Workloads that really differ, for benchmarks of the search: real models on these cores, and recorded A100s."""

import csv
from pathlib import Path

from autotune.config import load_config
from autotune.events import Silent
from autotune.records.base import write_record
from autotune.records.job.environment import Environment
from autotune.records.profile import MessageSize, Profile, StageMemory, StageProfile
from autotune.records.stage_costs import StageTime
from autotune.tune import profile_only
from tests.published import zero_bubble

USUAL: dict[str, object] = {"layers": 12, "hidden": 96, "seq_len": 64, "vocab": 512, "batch": 24, "device": "cpu"}
"""A step of a third of a second on two cores; the batch has eight divisors."""

REAL: dict[str, dict[str, object]] = {
    "2 ranks": USUAL | {"stages": 2, "batch": 48},
    "4 ranks": USUAL | {"stages": 4, "batch": 48},
}
"""Real ranks that compute."""

MEASURED: dict[str, dict[str, object]] = {
    "small hidden": USUAL | {"stages": 4, "layers": 24, "hidden": 32, "batch": 48},
    "large hidden": USUAL | {"stages": 2, "layers": 4, "hidden": 256},
    "long sequences": USUAL | {"stages": 2, "layers": 4, "hidden": 64, "seq_len": 512},
    "short sequences": USUAL | {"stages": 4, "layers": 24, "seq_len": 8, "batch": 60},
    "costly last stage": USUAL | {"stages": 4, "layers": 8, "vocab": 8192},
    "cheap last stage": USUAL | {"stages": 2, "layers": 15, "vocab": 16},
    "latency-bound": USUAL | {"stages": 4, "layers": 32, "hidden": 16, "seq_len": 4, "vocab": 32, "batch": 60},
    "memory-limited": USUAL | {"stages": 2, "hidden": 128, "schedule": "GPipe", "memory_limit": "100.3MiB"},
}
"""Profiled on these cores, then replayed: real ranks and messages, waiting instead of computing, because the computing
of these shared machines is noisier than candidates differ."""

A100: dict[str, dict[str, int]] = {"4 A100": {"ranks": 4, "batch": 24}, "8 A100": {"ranks": 8, "batch": 48}}
"""Published stage times, replayed."""

SEVERAL = "LoopedBFS,Interleaved1F1B,InterleavedZeroBubble,ZBVZeroBubble,DualPipeV"
ALL_SCHEDULES: dict[str, dict[str, object]] = {
    "2 ranks, all seven": USUAL | {"stages": 2, "schedule": "all"},
    "4 ranks, five": USUAL | {"stages": 4, "schedule": SEVERAL, "batch": 12, "replayed": True},
}
"""The first computes; the second is profiled with two stages per rank, and replayed."""


def efficiency() -> dict[int, float]:
    """Teraflops of one A100 by micro-batch size, as digitised from Narayanan et al. 2021, Figure 7."""
    with open(Path(zero_bubble.__file__).with_name("megatron_throughput.csv"), newline="") as file:
        return {int(row["microbatch_size"]): float(row["teraflops_per_gpu"]) for row in csv.DictReader(file)}


def a100_profile(ranks: int, batch: int) -> Profile:
    """The zero-bubble paper's 1.5B model; its times at b = 6 on 8 ranks, carried to other b by Megatron's curve."""
    known = zero_bubble.stage_times()["1.5B", 24]
    scale = 8 / ranks
    rates = efficiency()
    at_six = rates[4] + (rates[8] - rates[4]) / 2
    rows = []
    for size, rate in rates.items():
        factor = scale * size / 6 * at_six / rate
        rows.append(
            StageTime(micro_batch_size=size, t_f=known.t_f * factor, t_b=known.t_b * factor, t_w=known.t_w * factor)
        )
    stage = StageProfile(
        time_s=tuple(rows), memory=(StageMemory(micro_batch_size=1, activation_bytes=round(0.7e9 * scale)),)
    )
    message = MessageSize(micro_batch_size=1, bytes=1024 * 2304 * 2)  # the paper's sequence and hidden size, bf16
    return Profile(
        environment=Environment(device="cuda", devices=("NVIDIA A100-SXM4-80GB",) * ranks),
        stages=(stage,) * ranks,
        message_bytes=(message,),
        workload={"batch": batch, "seq_len": 1024, "layers": 24},  # type: ignore[arg-type]
    )


def is_replayed(name: str) -> bool:
    """Whether its ranks wait instead of computing."""
    return name in MEASURED or name in A100 or "replayed" in ALL_SCHEDULES.get(name, {})


def flags_of(name: str, folder: Path) -> dict[str, object]:
    """The flags of ``autotune run`` for a workload; a profile that it needs is measured or written to ``folder``."""
    places: dict[str, object] = {"state_dir": folder / "state", "out": folder / "report.json"}
    if not is_replayed(name):
        return (REAL | ALL_SCHEDULES)[name] | places
    path = folder / "recorded.json"
    replayed = {"device": "replay", "profile": path} | places
    if name in A100:
        write_record(path, a100_profile(**A100[name]))
        return replayed
    flags = {key: value for key, value in (MEASURED | ALL_SCHEDULES)[name].items() if key != "replayed"}
    profile_only(load_config(None, flags | places | {"out": path}), Silent())
    return replayed | {key: flags[key] for key in ("schedule", "memory_limit") if key in flags}
