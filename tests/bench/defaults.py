"""The default workload on GPUs that are not here: which m and schedule fit, and where a sweet spot could lie.

Bytes are from fake tensors (``pipeline.rank.paper``), put through the memory model that every run uses. Seconds are
assumed: published throughput against the micro-batch size, scaled to what such a device reaches.
"""

import csv
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from autotune.config import Config
from autotune.pipeline.rank.paper import stage_memory
from autotune.predict.predict import candidates_for, predict
from autotune.profile.fragmentation import ASSUMED
from autotune.records.job.workload import WorkloadConfig
from autotune.records.prediction import Candidate, Prediction
from autotune.records.profile import Link, MessageSize, Profile, StageProfile
from autotune.records.stage_costs import StageMemory, StageTime
from autotune.workload.gpt import Gpt, boundary_type, build_stage
from autotune.workload.optimizer import static_bytes
from autotune.workload.partition import layers_of_stage, layers_per_stage
from tests import published

GB = 10**9
OUTSIDE = 1_200_000_000  # of a device: the CUDA context, NCCL's buffers, the workspaces of cuBLAS
OPTIMIZER_BYTES = 38  # read and written per weight: gradient zeroed and read, three numbers updated, master cast


class Machine(NamedTuple):
    """Alike devices: what each has, times the published rate that it reaches, and memory it moves in a second."""

    name: str
    devices: int
    memory_bytes: int
    pace: float
    memory_bytes_s: float
    link_bytes_s: float


MACHINES = (
    Machine("4 x A100 80 GB", 4, 80 * GB, 2.0, 1.7e12, 2.0e11),
    Machine("4 x A100 40 GB", 4, 40 * GB, 2.0, 1.3e12, 2.0e11),
    Machine("8 x H100 80 GB", 8, 80 * GB, 5.0, 2.8e12, 3.5e11),
)


class Row(NamedTuple):
    """A candidate with its prediction."""

    candidate: Candidate
    prediction: Prediction

    @property
    def most(self) -> int:
        """Bytes taken of the fullest device."""
        return max(self.prediction.device_memory_bytes or ())

    @property
    def told(self) -> tuple[str, int]:
        """Schedule and m."""
        return self.candidate.schedule, self.candidate.micro_batches


def workload(devices: int) -> WorkloadConfig:
    """What ``autotune run --stages N`` trains on GPUs."""
    return Config(stages=devices).workload("cuda")


@cache
def published_rates() -> dict[int, float]:
    """Operations per second by micro-batch size: Narayanan et al. 2021, figure 7."""
    with Path(published.__path__[0], "megatron_throughput.csv").open(newline="") as file:
        rows = [(int(row["microbatch_size"]), float(row["teraflops_per_gpu"])) for row in csv.DictReader(file)]
    return {size: rate * 1e12 for size, rate in rows}


@cache
def memory_on_paper(devices: int, sizes: tuple[int, ...]) -> tuple[tuple[StageMemory, ...], ...]:
    """Rows of every stage; stages in the middle that have as many layers are alike."""
    work = workload(devices)
    counts, found = layers_per_stage(work.layers, devices), {}
    kinds = [(index == 0, index == devices - 1, count) for index, count in enumerate(counts)]
    for index, kind in enumerate(kinds):
        if kind not in found:
            found[kind] = tuple(
                stage_memory(Gpt(work), layers_of_stage(work.layers, devices, index), sizes, split=False, cuda=True)
            )
    return tuple(found[kind] for kind in kinds)


def profile(machine: Machine, sizes: tuple[int, ...], rates: dict[int, float]) -> Profile:
    """Everything that a prediction needs; ``rates`` by micro-batch size, beyond the last the last."""
    work, devices = workload(machine.devices), machine.devices
    counts, most = layers_per_stage(work.layers, devices), max(rates)
    stages = []
    for index, memory in enumerate(memory_on_paper(devices, sizes)):
        stage = build_stage(work, index, devices, torch.device("meta"))
        first = sum(counts[:index])
        operations = sum(work.operations_by_layer[first : first + counts[index]])
        forward = {size: size * operations / (machine.pace * rates[min(size, most)]) for size in sizes}
        weights = sum(weight.numel() for weight in stage.parameters())
        stages.append(
            StageProfile(
                layers=counts[index],
                static_bytes=static_bytes(stage, work.optimizer),
                time_s=tuple(StageTime(micro_batch_size=b, t_f=t_f, t_bw=2 * t_f) for b, t_f in forward.items()),
                memory=memory,
                optimizer_s=OPTIMIZER_BYTES * weights / machine.memory_bytes_s,
            )
        )
    pairs = [(a, b) for a in range(devices) for b in (a - 1, a + 1) if 0 <= b < devices]
    wire = {"latency_s": 1e-5, "bandwidth_bytes_s": machine.link_bytes_s}
    message = work.seq_len * work.hidden * boundary_type(work).itemsize
    return Profile(
        workload=asdict(work),
        stages=tuple(stages),
        links=tuple(Link(**{"from": a, "to": b}, **wire) for a, b in pairs),
        message_bytes=tuple(MessageSize(micro_batch_size=size, bytes=size * message) for size in sizes),
        reserved_over_allocated=ASSUMED.times,
        outside_bytes=OUTSIDE,
    )


@cache
def rows(machine: Machine, is_flat: bool = False) -> tuple[Row, ...]:
    """Every candidate of 1F1B and GPipe; ``is_flat``: on a device that is no slower at small micro-batches."""
    work, counts = workload(machine.devices), Config().counts()
    found, _ = candidates_for(counts, ("1F1B", "GPipe"), (1,), machine.devices, work.layers, work.batch)
    sizes = tuple(sorted({candidate.micro_batch_size for candidate in found}))
    rates = published_rates()
    made = profile(machine, sizes, {1: max(rates.values())} if is_flat else rates)
    return tuple(Row(candidate, predict(made, candidate, machine.memory_bytes)) for candidate in found)


def best(machine: Machine, is_flat: bool = False) -> Row:
    """The fastest of those that fit."""
    fitting = [row for row in rows(machine, is_flat) if row.prediction.fits]
    return max(fitting, key=lambda row: row.prediction.throughput_seq_s)


def shown(row: Row) -> str:
    """A line of the table."""
    one, splits, taken = row.candidate, row.prediction.memory_split_bytes, row.prediction.device_memory_bytes
    assert splits is not None and taken is not None
    rank = taken.index(row.most)
    parts = f"{splits[rank].static / GB:6.1f} {splits[rank].activations / GB:11.1f}"
    fits = "yes" if row.prediction.fits else "NO"
    where = f"rank {rank}, {splits[rank].moment}"
    speed = f"{row.prediction.throughput_seq_s:6.1f}"
    sizes = f"{one.micro_batches:3} {one.micro_batch_size:3} {one.schedule:8}"
    return f"  {sizes} {row.most / GB:7.1f} {parts} {fits:>4} {speed}  {where}"


def main() -> None:
    """A table for each machine."""
    for machine in MACHINES:
        work = workload(machine.devices)
        model = f"{work.layers} layers, hidden {work.hidden}, heads {work.heads}, vocab {work.vocab}"
        print(f"\n{machine.name}: {model}, sequence {work.seq_len}, batch {work.batch}, {work.precision}")
        print("  GB of the fullest device, of its static and activation bytes; sequences/s at the assumed rate")
        print("    m   b schedule fullest static activations fits  seq/s  fullest where")
        for row in rows(machine):
            print(shown(row))
        for text, is_flat in (("fastest that fits", False), ("if small micro-batches were no slower", True)):
            print("  {}: {}, m = {}".format(text, *best(machine, is_flat).told))
