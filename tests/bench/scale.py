"""What it costs to predict a pipeline of 64 to 1024 ranks: a prediction in a process of its own, then a whole plan.

A prediction is all that ``autotune scale`` says of one m: the step, where its time goes, and the memory of every rank.
Then, as far as this machine goes, what is predicted from: four stages extrapolated to eight, against eight measured
ones.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from autotune.plan.extrapolate import extrapolate
from autotune.plan.network import connected, read_network
from autotune.plan.scale import Request, scale
from autotune.predict.predict import predict
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile, StageProfile, read_profile
from tests.bench.speed import action_count, goal, most_mib, stages_per_rank

RANKS = (64, 128, 256, 512, 1024)
LAYERS = 12  # of each of the four ranks that were profiled
MIB = 2**20
GOALS = {"1F1B": (2, 1024, 60), "Interleaved1F1B": (30, 4096, 180)}
"""Seconds and MiB of the largest prediction; seconds of a plan."""


def profile() -> Profile:
    """Four ranks: 10 ms forward and 20 ms backward per sequence, more on the last, and 1 ms for each action."""
    rows = [{"micro_batch_size": b, "t_f": 0.001 + 0.009 * b, "t_bw": 0.002 + 0.018 * b} for b in (1, 2, 4, 8, 16)]
    head = [row | {"t_f": 1.1 * row["t_f"], "t_bw": 1.1 * row["t_bw"]} for row in rows]
    memory = [{"micro_batch_size": b, "activation_bytes": 40 * b * MIB, "transient_bytes": b * MIB} for b in (1, 16)]
    stages = [{"layers": LAYERS, "time_s": row, "memory": memory, "static_bytes": MIB} for row in (*3 * [rows], head)]
    messages = [{"micro_batch_size": b, "bytes": 16 * b * MIB} for b in (1, 16)]
    facts = {"batch": 64, "seq_len": 2048}
    return Profile.model_validate(
        {"stages": stages, "message_bytes": messages, "workload": facts, "action_overhead_s": 1e-4, "drift": 0.01}
    )


def predict_once(name: str, ranks: int) -> None:
    """Prints the seconds of one prediction, and the most MiB that this process held before and after it."""
    paper = connected(extrapolate(profile(), ranks, stages_per_rank(name)), read_network(Path("dgx-h100")))
    m, v, before = 4 * ranks, stages_per_rank(name), most_mib()
    candidate = Candidate(micro_batches=m, micro_batch_size=1, sequences=m, schedule=name, virtual_stages=v)
    begun = perf_counter()
    predict(paper, candidate, None)
    print(perf_counter() - begun, before, most_mib())


def predictions() -> None:
    """A line for each number of ranks, m = 4p."""
    print("one prediction, m = 4p: the step, its parts and the memory of every rank")
    for name, (most_s, most, _) in GOALS.items():
        for ranks in RANKS:
            code = f"from tests.bench.scale import predict_once; predict_once({name!r}, {ranks})"
            done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            seconds, before, after = map(float, done.stdout.split())
            actions = action_count(name, ranks, 4 * ranks)
            print(
                f"  {name:15} p = {ranks:<4} {actions / 1e6:5.2f} million actions: {seconds:6.2f} s,"
                f" {actions / seconds / 1e6:5.2f} million/s, peak {after:5.0f} MiB ({before:.0f} before)",
                flush=True,
            )
        figure = f"{name}, p = {RANKS[-1]}: {seconds:.1f} s and {after:.0f} MiB"
        goal(figure, f"{most_s} s and {most} MiB", seconds < most_s and after < most)


def whole_plans() -> None:
    """All that the command does: every p, some seven m each, and links twice as slow."""
    network = read_network(Path("dgx-h100"))
    for name, (_, _, most_s) in GOALS.items():
        begun = perf_counter()
        plan = scale(profile(), Request(RANKS, network, (name,), stages_per_rank(name)))
        seconds = perf_counter() - begun
        steps = sum(len(point.evaluated) for point in plan.points)
        best = ", ".join(f"{point.ranks}: {point.micro_batches} ({point.efficiency:.0%})" for point in plan.points)
        print(f"a plan under {name}: {steps} simulated steps; best m (efficiency) at p = {best}")
        goal(f"{seconds:.1f} s", f"{most_s} s", seconds < most_s)


def measured(layers: int, stages: int, folder: str) -> Profile:
    """What ``autotune profile`` makes of the built-in model here, on the CPU."""
    path = Path(folder, f"{layers}-{stages}.json")
    command = [sys.executable, "-m", "autotune", "profile", "--device", "cpu", "--quiet", "--micro-batches", "8,16,32"]
    command += ["--layers", str(layers), "--stages", str(stages), "--state-dir", folder, "--out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return read_profile(path)


def against_measured() -> None:
    """Each profile is measured once, one after the other, so drift of the machine is in the differences of times."""
    with tempfile.TemporaryDirectory() as folder:
        source = measured(48, 4, folder)
        for layers in (96, 48):
            real, paper = measured(layers, 8, folder), extrapolate(source, 8, 1, layers)
            drift = f"drift while profiling {source.drift:.1%} and {real.drift:.1%}"
            print(f"4 stages of 12 layers extrapolated to 8 of {layers // 8}, against 8 that were measured ({drift}):")
            for size in (2, 4, 8):
                sums = [
                    sum(stage.seconds(size, lambda row: row.t_f + row.backward) for stage in one.stages)
                    for one in (paper, real)
                ]
                print(f"  forward and backward of all stages, b = {size}: {sums[0] / sums[1] - 1:+.1%}")
            for name, part in (("weights", lambda one: one.static_bytes), ("activations, b = 4", activations)):
                off = max(abs(part(a) / part(b) - 1) for a, b in zip(paper.stages, real.stages, strict=True))
                print(f"  bytes of {name}: off by at most {off:.1%}")


def activations(stage: StageProfile) -> float:
    """Of one micro-batch of four sequences."""
    return stage.bytes(4, lambda row: row.activation_bytes)


def main() -> None:
    """All three."""
    predictions()
    whole_plans()
    against_measured()
