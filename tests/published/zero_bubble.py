"""The tables of the zero-bubble paper as records, its stage times as a hand-written profile, and what we predict."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

from autotune.predict.predict import predict
from autotune.predict.schedules import build_schedule
from autotune.predict.simulator.simulate import Costs, simulate
from autotune.records.prediction import Candidate, Prediction
from autotune.records.profile import Profile

CHUNKS = 3
"""v of the paper's 1F1B-I: as many as there are layers (22 + 2 on 8 GPUs, 46 + 2 on 16)."""


class StageTimes(NamedTuple):
    """Seconds of one micro-batch on any stage, and of one hop."""

    t_f: float
    t_b: float
    t_w: float
    hop: float

    @property
    def work(self) -> float:
        """Seconds that a micro-batch keeps a stage busy."""
        return self.t_f + self.t_b + self.t_w


class Throughput(NamedTuple):
    """One measured row: ``samples`` are samples per GPU and second."""

    model: str
    p: int
    m: int
    b: int
    schedule: str
    samples: float

    @property
    def step(self) -> float:
        """Seconds of a step, from samples/GPU/s = m·b / (p · step)."""
        return self.m * self.b / (self.p * self.samples)


class BubbleRates(NamedTuple):
    """One theoretical row: idle time as a fraction of the step, by the paper's names of schedules."""

    model: str
    p: int
    m: int
    rate: dict[str, float]


def rows(table: str) -> list[dict[str, str]]:
    """The rows of one CSV file of this folder."""
    with open(Path(__file__).with_name(f"zero_bubble_{table}.csv"), newline="") as file:
        return list(csv.DictReader(file))


def stage_times() -> dict[tuple[str, int], StageTimes]:
    """By model and m: the paper profiled every run anew."""
    columns = ("T_F_ms", "T_B_ms", "T_W_ms", "T_comm_ms")
    return {
        (row["model"], int(row["microbatches_m"])): StageTimes(*(float(row[column]) / 1e3 for column in columns))
        for row in rows("stage_times")
    }


def bubble_rates() -> list[BubbleRates]:
    """Every row of the theoretical bubble rates."""
    schedules = ("1F1B", "1F1B-I", "ZB-H1")
    return [
        BubbleRates(
            row["model"],
            int(row["stages_p"]),
            int(row["microbatches_m"]),
            {name: float(row[name]) for name in schedules},
        )
        for row in rows("bubble_rates_theoretical")
    ]


def throughputs(table: str, schedule: str) -> list[Throughput]:
    """The measured rows of one schedule, of table ``throughput_memory`` or ``small_m``."""
    return [
        Throughput(
            row["model"],
            int(row["stages_p"]),
            int(row["microbatches_m"]),
            int(row["microbatch_size_b"]),
            row["schedule"],
            float(row["samples_per_gpu_per_second"]),
        )
        for row in rows(table)
        if row["schedule"] == schedule
    ]


def times_of(row: Throughput) -> StageTimes:
    """The stage times of a measured row; those of the nearest m where the paper prints none for its own."""
    known = {m: times for (model, m), times in stage_times().items() if model == row.model}
    return known[min(known, key=lambda m: abs(m - row.m))]


def written_by_hand(times: StageTimes, p: int, b: int, virtual_stages: int = 1) -> Profile:
    """The profile that a reader of the paper would write: stage times and hops, no optimizer, no memory.

    A chunk takes its share of the stage's time and a whole hop; the hop from the last rank to the first too.
    """
    seconds = {name: getattr(times, name) / virtual_stages for name in ("t_f", "t_b", "t_w")}
    boundaries = [(rank, rank + 1) for rank in range(p - 1)] + [(p - 1, 0)] * (virtual_stages > 1)
    both_ways = boundaries + [(target, source) for source, target in boundaries]
    document = {
        "kind": "autotune.profile",
        "virtual_stages": virtual_stages,
        "stages": [{"time_s": [{"micro_batch_size": b, **seconds}]}] * (p * virtual_stages),
        "links": [{"from": source, "to": target, "latency_s": times.hop} for source, target in both_ways],
    }
    return Profile.model_validate_json(json.dumps(document))


# --- what this project makes of them ------------------------------------------------------------------------------

OURS = {"1F1B": ("1F1B", 1), "1F1B-I": ("Interleaved1F1B", CHUNKS), "ZB-H1": ("InterleavedZeroBubble", 1)}
"""The paper's name of a schedule -> torch's name and the stages per rank."""


def chunk_costs(row: BubbleRates, virtual_stages: int) -> Costs:
    """What the paper assumes: a chunk takes its share of the stage's time, and every hop the whole T_comm."""
    times, v = stage_times()[row.model, row.m], virtual_stages
    stages, hops = row.p * v, [times.hop] * (row.p * v - 1)
    work = (times.t_f, times.t_b + times.t_w, times.t_b, times.t_w)
    return Costs(*([seconds / v] * stages for seconds in work), activation_link=hops, gradient_link=hops)


def simulated_step(row: BubbleRates, schedule: str) -> float:
    """Seconds of the step, every message travelling as soon as it is made."""
    name, v = OURS[schedule]
    return simulate(build_schedule(name, row.p, row.m, v), chunk_costs(row, v), receives="early").makespan


def rate(row: BubbleRates, step: float) -> float:
    """The bubble rate of a step: the part of it that a GPU does not compute."""
    return 1 - row.m * stage_times()[row.model, row.m].work / step


def predicted_step(row: Throughput) -> float:
    """Seconds of the step that ``prediction_of`` says."""
    return prediction_of(row).step_time_s


def prediction_of(row: Throughput) -> Prediction:
    """The step as ``autotune predict`` has it, from the hand-written profile.

    Where m < p this is 1F1B still, though torch refuses it and a search would put GPipe in its place.
    """
    name, v = OURS[row.schedule]
    profile = written_by_hand(times_of(row), row.p, row.b, v)
    sizes = {"micro_batches": row.m, "micro_batch_size": row.b, "sequences": row.m * row.b}
    candidate = Candidate.model_validate({**sizes, "schedule": name, "virtual_stages": v})
    return predict(profile, candidate, memory_limit=None)
