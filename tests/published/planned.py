"""Published steps against those of ``plan``, which is given no times: only the model, the layout and the device.

What the papers do not say is taken as usual: Megatron-LM before 2024 writes the scores of attention. In Hagemann et al.
and BLOOM the software is another (Aleph Alpha's own, which kernel of attention is not told; Megatron-DeepSpeed on a
fabric of 4 x 100 Gb/s to a host): their sweeps say whether the best micro-batch size is found, and BLOOM's also how far
a plan may be off for other software.
"""

import csv
from functools import cache
from math import log
from pathlib import Path
from typing import NamedTuple

from autotune.plan.devices import read_device
from autotune.plan.estimate import Job, paper_profile
from autotune.plan.network import Network, Wire
from autotune.plan.roofline import FITTED, Constants, Machine
from autotune.plan.shape import Shape
from autotune.predict.predict import predict
from autotune.records.job.layout import Attention, Layout, Runtime
from autotune.records.job.recompute import Recompute
from autotune.records.prediction import Candidate, Prediction
from autotune.schedule_spec import ScheduleName
from tests.published.extrapolations import Sweep, sweeps

FOLDER = Path(__file__).parent
BLOOM = {"bloom_194B": (78, 14400, 96), "bloom_195B": (77, 14400, 96), "bloom_187B": (80, 13824, 108)}
BLOOM["bloom_181B"] = (72, 14336, 112)  # layers, hidden, heads: chronicles-prequel.md
LLAMA = {"llama_13B": (40, 5120, 40, 13824), "llama_30B": (60, 6656, 52, 17920), "llama_65B": (80, 8192, 64, 22016)}
# Jean Zay: eight A100 to a host, whose four Omni-Path links of 100 Gb/s they share.
JEAN_ZAY = Network(
    ranks_per_host=8,
    rails=4,
    inside=Wire(latency_s=1e-5, bandwidth_bytes_s=3e11),
    between=Wire(latency_s=2e-5, bandwidth_bytes_s=12.5e9),
)


class Case(NamedTuple):
    """A published step. ``sizes``: the micro-batch sizes of which the quickest is meant."""

    paper: str
    name: str
    job: Job
    sizes: tuple[int, ...]
    step_s: float
    peak_gb: float | None = None


class Result(NamedTuple):
    case: Case
    prediction: Prediction

    @property
    def error(self) -> float:
        """The logarithm of predicted over real."""
        return log(self.prediction.step_time_s / self.case.step_s)

    @property
    def is_covered(self) -> bool:
        return self.prediction.step_time_low_s <= self.case.step_s <= self.prediction.step_time_high_s


def read(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def machine(constants: Constants = FITTED) -> Machine:
    return Machine(read_device(Path("a100-80gb")), "bf16", constants)


def gpt(layers: int, hidden: int, heads: int, seq_len: int, vocab: int) -> Shape:
    return Shape(
        layers=layers, hidden=hidden, heads=heads, kv_heads=heads, ffn=4 * hidden, vocab=vocab, seq_len=seq_len
    )


def megatron_sc21() -> list[Case]:
    """Table 1, laid out as the authors' script does: teraflop/s by equation 3, which counts full recomputation."""
    found = []
    for row in read("megatron_sc21.csv"):
        layers, hidden, batch, gpus = (int(row[name]) for name in ("layers", "hidden", "batch", "gpus"))
        shape = gpt(layers, hidden, int(row["heads"]), 2048, 51200)
        work = 96 * batch * 2048 * layers * hidden**2 * (1 + 2048 / (6 * hidden) + 51200 / (16 * layers * hidden))
        t, p = int(row["tensor_parallel"]), int(row["pipeline_parallel"])
        d = gpus // (t * p)
        layout = Layout(
            pipeline_parallel=p,
            tensor_parallel=t,
            data_parallel=d,
            virtual_stages=int(row["virtual_stages"]),
            recompute=Recompute.FULL,
            attention=Attention.SCORES,
            runtime=Runtime.MEGATRON,
        )
        sizes = (int(row["micro_batch_size"]),)
        step = work / (float(row["teraflops_per_gpu"]) * 1e12 * gpus)
        found.append(Case("Narayanan", f"{row['billions']}B", Job(machine(), shape, layout, batch // d), sizes, step))
    return found


def korthikanti() -> list[Case]:
    """Table 5: full recomputation, and selective recomputation with sequence parallelism."""
    found = []
    for row in read("korthikanti.csv"):
        shape = gpt(int(row["layers"]), int(row["hidden"]), int(row["heads"]), 2048, 51200)
        for column, recompute in (("full_recompute_s", Recompute.FULL), ("present_work_s", Recompute.SELECTIVE)):
            layout = Layout(
                pipeline_parallel=int(row["pipeline_parallel"]),
                tensor_parallel=int(row["tensor_parallel"]),
                virtual_stages=int(row["virtual_stages"]),
                sequence_parallel=recompute is Recompute.SELECTIVE,
                recompute=recompute,
                attention=Attention.SCORES,
                runtime=Runtime.MEGATRON,
            )
            job = Job(machine(), shape, layout, int(row["batch"]))
            sizes = (int(row["micro_batch_size"]),)
            found.append(Case("Korthikanti", f"{row['model']} {recompute}", job, sizes, float(row[column])))
    return found


def zero_bubble() -> list[Case]:
    """Tables 4 and 9, 1F1B: the paper's models have two layers less than the even cut, one at either end. The authors'
    scripts train in fp16."""
    models = {row["model"]: row for row in read("zero_bubble_models.csv")}
    found = []
    for table in ("zero_bubble_throughput_memory.csv", "zero_bubble_small_m.csv"):
        for row in read(table):
            if row["schedule"] != "1F1B":
                continue
            model, p = models[row["model"]], int(row["stages_p"])
            m, b = (
                int(row["microbatches_m"]),
                int(row["microbatch_size_b" if "microbatch_size_b" in row else "microbatch_size"]),
            )
            names = ("layers", "hidden_size", "attention_heads", "seq_len")
            shape = gpt(*(int(model[name]) for name in names), 50304)
            layout = Layout(pipeline_parallel=p, attention=Attention.SCORES, runtime=Runtime.MEGATRON)
            step = m * b / (p * float(row["samples_per_gpu_per_second"]))
            peak = float(row.get("peak_memory_GB") or row["memory_GB"])
            job = Job(machine()._replace(precision="fp16"), shape, layout, m * b)
            found.append(Case("Qi", f"{row['model']} m={m}", job, (b,), step, peak))
    return found


def of_sweep(sweep: Sweep, constants: Constants = FITTED) -> Job:
    """The job of a sweep over the micro-batch size, without its batch."""
    name = sweep.name
    if name.startswith("bloom"):
        layers, hidden, heads = BLOOM["_".join(name.split("_")[:2])]
        shape, t, kept = gpt(layers, hidden, heads, 2048, 250880), 8, Recompute.FULL
        layout = Layout(
            pipeline_parallel=sweep.stages,
            tensor_parallel=t,
            data_parallel=sweep.replicas,
            recompute=kept,
            attention=Attention.SCORES,
            shared_optimizer=True,
        )
        return Job(machine(constants), shape, layout, 1, network=JEAN_ZAY)
    parts = name.split("_")
    layers, hidden, heads, ffn = LLAMA["_".join(parts[:2])]
    shape = Shape(
        layers=layers, hidden=hidden, heads=heads, kv_heads=heads, ffn=ffn, vocab=32000, seq_len=2048, gated=True
    )
    layout = Layout(
        pipeline_parallel=sweep.stages,
        tensor_parallel=int(parts[3].removeprefix("tp")),
        data_parallel=sweep.replicas,
        recompute=Recompute.NONE if "disabled" in name else Recompute.FULL,
        shared_optimizer=True,
    )
    return Job(machine(constants), shape, layout, 1)


def bloom() -> list[Case]:
    """Every run of BLOOM's sweeps, with the memory that the chronicles state of each."""
    memory = {(row["sweep"], int(row["micro_batch_size"])): row for row in read("bloom_memory.csv")}
    found = []
    for sweep in sweeps():
        if sweep.name.startswith("bloom"):
            job = of_sweep(sweep)
            for run in sweep.runs:
                name, mine = f"{sweep.name[:26]} b={run.b}", job._replace(batch=run.m * run.b)
                peak = float(memory[sweep.name, run.b]["peak_memory_GB"])
                found.append(Case("BLOOM", name, mine, (run.b,), run.step_s, peak))
    return found


def step(job: Job, b: int) -> Prediction:
    """The step that ``plan`` says, under 1F1B or interleaved."""
    m, v = job.batch // b, job.layout.virtual_stages
    name: ScheduleName = "Interleaved1F1B" if v > 1 else "1F1B"  # Megatron-LM's own takes m < p too
    candidate = Candidate(micro_batches=m, micro_batch_size=b, sequences=m * b, schedule=name, virtual_stages=v)
    return predict(paper_profile(job, (b,)), candidate, None)


def run(case: Case, constants: Constants = FITTED) -> Result:
    job = case.job._replace(machine=case.job.machine._replace(constants=constants))
    return Result(case, min((step(job, b) for b in case.sizes), key=lambda one: one.step_time_s))


@cache
def results() -> tuple[Result, ...]:
    """Every published step that plan can be asked for."""
    return tuple(run(case) for case in (*megatron_sc21(), *korthikanti(), *zero_bubble(), *bloom()))


def regret(sweep: Sweep) -> float:
    """How much longer the step of the size that plan picks really took than the quickest one of the sweep."""
    job = of_sweep(sweep)
    said = {run.b: step(job._replace(batch=run.m * run.b), run.b).step_time_s for run in sweep.runs}
    real = {run.b: run.step_s for run in sweep.runs}
    return real[min(said, key=lambda b: said[b])] / min(real.values()) - 1
