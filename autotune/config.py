"""TOML + flags -> one validated, frozen Config; and the Workload record that it settles.

A flag wins over the file. A rule broken by a flag is a usage error (exit 2); one broken by the file alone is a config
error (exit 3).
"""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, PositiveInt, SecretStr, ValidationError, model_validator

from autotune import storage_url
from autotune.errors import InputError, UsageError
from autotune.records import Record, explain, read_bytes

Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["adamw", "sgd", "none"]
Norm = Literal["layer", "batch"]
DeviceKind = Literal["auto", "cpu", "cuda", "replay"]
SamplerName = Literal["cost-model", "tpe", "gp", "random", "grid"]
Objective = Literal["throughput", "memory"]
ScheduleName = Literal[
    "GPipe", "1F1B", "LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"
]
SPLIT_BACKWARD: tuple[ScheduleName, ...] = ("InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV")
"""Schedules that run input and weight gradients apart."""
V_SHAPED: tuple[ScheduleName, ...] = ("ZBVZeroBubble", "DualPipeV")
"""Schedules whose stages go down the ranks and come back up; in all others they go round in a loop."""

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def parse_quantity(value: Any, units: Mapping[str, int], example: str) -> Any:
    """Turns ``"8GiB"`` or ``"2m"`` into a number of the base unit; passes numbers through, refuses other text."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*|%)\s*", value)
    if not match or match[2].lower() not in units:
        raise ValueError(f"write a number with a unit, such as {example}")
    return float(match[1]) * units[match[2].lower()]


def parse_bytes(value: Any) -> Any:
    """Bytes from ``"8GiB"``, ``"512MiB"`` or a plain number of bytes."""
    number = parse_quantity(value, UNITS, "8GiB")
    return int(number) if isinstance(number, float) else number


def parse_seconds(value: Any) -> Any:
    """Seconds from ``"120s"``, ``"2m"`` or a plain number of seconds."""
    return parse_quantity(value, SECONDS, "120s")


def parse_share(value: Any) -> Any:
    """A share of one from ``"5%"`` or a plain number."""
    number = parse_quantity(value, {"%": 1}, "5%")
    return number / 100 if isinstance(value, str) and "%" in value else number


def split_commas(value: Any) -> Any:
    """``"1,2,4"`` becomes ``["1", "2", "4"]``; lists and single numbers become lists."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def expand_schedules(value: Any) -> Any:
    """``"all"`` becomes every schedule."""
    names = split_commas(value)
    return list(get_args(ScheduleName)) if names == ["all"] else names


def divisors(number: int) -> tuple[int, ...]:
    """Every divisor of ``number``, ascending."""
    return tuple(candidate for candidate in range(1, number + 1) if number % candidate == 0)


class WorkloadFacts(Record):
    """What is known of the training job behind a profile; a hand-written profile may leave anything out."""

    layers: PositiveInt | None = None
    stages: PositiveInt | None = None
    hidden: PositiveInt | None = None
    heads: PositiveInt | None = None
    seq_len: PositiveInt | None = None
    vocab: PositiveInt | None = None
    batch: PositiveInt | None = None
    precision: Precision | None = None
    optimizer: Optimizer | None = None
    norm: Norm | None = None
    seed: int | None = None


class Workload(WorkloadFacts):
    """The training job, every size settled: ``layers`` transformer blocks cut into ``stages``, ``batch`` sequences."""

    layers: PositiveInt
    stages: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    seq_len: PositiveInt
    vocab: PositiveInt
    batch: PositiveInt
    precision: Precision
    optimizer: Optimizer
    norm: Norm = "layer"
    seed: int = 0


DEFAULT_SIZES: dict[str, dict[str, Any]] = {
    # A step of about half a second on two cores.
    "cpu": {"hidden": 64, "heads": 4, "seq_len": 32, "vocab": 512, "precision": "fp32"},
    # 10.1 billion parameters: 161 GB with gradients and AdamW's state, so no single 80 GB device holds it.
    "cuda": {"hidden": 4096, "heads": 32, "seq_len": 2048, "vocab": 50304, "precision": "bf16"},
}


class Config(Record):
    """Everything a user can set, from flags and TOML. Sizes left out are settled by the device (``DEFAULT_SIZES``)."""

    layers: Annotated[PositiveInt, Field(description="transformer blocks in the model")] = 48
    stages: Annotated[PositiveInt, Field(description="pipeline stages, one device each")] = 4
    hidden: Annotated[PositiveInt | None, Field(description="width of the model")] = None
    heads: Annotated[PositiveInt | None, Field(description="attention heads; divides hidden")] = None
    seq_len: Annotated[PositiveInt | None, Field(description="tokens per sequence")] = None
    vocab: Annotated[PositiveInt | None, Field(description="tokens in the vocabulary")] = None
    batch: Annotated[PositiveInt, Field(description="sequences per step and data-parallel replica")] = 64
    precision: Annotated[Precision | None, Field(description="fp32, or autocast to bf16 or fp16 (CUDA)")] = None
    optimizer: Annotated[Optimizer, Field(description="what steps after each batch")] = "adamw"
    norm: Annotated[Norm, Field(description="normalisation in the blocks; batch sees only one micro-batch")] = "layer"
    micro_batches: Annotated[
        tuple[PositiveInt, ...] | None,
        BeforeValidator(split_commas),
        Field(min_length=1, description="candidate numbers of micro-batches; default: every divisor of the batch"),
    ] = None
    micro_batch_size: Annotated[
        PositiveInt | None, Field(description="fixes the micro-batch size, so that the batch grows with m")
    ] = None
    min_micro_batch_size: Annotated[PositiveInt, Field(description="fewest samples that batch statistics may see")] = 8
    schedule: Annotated[
        tuple[ScheduleName, ...],
        BeforeValidator(expand_schedules),
        Field(min_length=1, description="schedules to try, or all; where m < stages, GPipe stands in for 1F1B"),
    ] = ("1F1B",)
    virtual_stages: Annotated[
        tuple[PositiveInt, ...],
        BeforeValidator(split_commas),
        Field(min_length=1, description="stages per rank to try; GPipe and 1F1B always run one"),
    ] = (2,)
    profile: Annotated[Path | None, Field(description="recorded profile, for --device replay")] = None
    device: Annotated[DeviceKind, Field(description="auto falls to the CPU only when there is no GPU at all")] = "auto"
    memory_limit: Annotated[
        PositiveInt | None,
        BeforeValidator(parse_bytes),
        Field(description="bytes each rank may hold, such as 8GiB; default: what the device has"),
    ] = None
    budget: Annotated[
        float | None, BeforeValidator(parse_seconds), Field(gt=0, description="seconds for trials, such as 120s")
    ] = None
    trials: Annotated[PositiveInt | None, Field(description="most candidates to confirm by real runs")] = None
    exhaustive: Annotated[bool, Field(description="confirm every candidate that fits, prune none")] = False
    sampler: Annotated[
        SamplerName, Field(description="who proposes the next candidate: the cost model, or one of Optuna's samplers")
    ] = "cost-model"
    objective: Annotated[
        Objective, Field(description="highest throughput, or lowest peak memory within the tolerance of it")
    ] = "throughput"
    tolerance: Annotated[
        float | None,
        BeforeValidator(parse_share),
        Field(gt=0, lt=1, description="throughputs this close are alike; default: 1%, with objective memory 5%"),
    ] = None
    explore_limit: Annotated[bool, Field(description="try also what is predicted not to fit in memory")] = False
    out: Annotated[Path, Field(description="where the report is written")] = Path("report.json")
    state_dir: Annotated[Path, Field(description="profiles and studies of earlier runs")] = Path(".autotune")
    storage: Annotated[
        SecretStr | None,
        Field(
            description="database of a study that several controllers share, such as postgresql://user@host/database"
        ),
    ] = None
    heartbeat: Annotated[
        float,
        BeforeValidator(parse_seconds),
        Field(ge=1, description="seconds between signs of life in a shared study; three missing ones count as death"),
    ] = 10.0
    fresh: Annotated[bool, Field(description="measure everything again")] = False
    record_timeline: Annotated[
        bool, Field(description="record when every action of a few real steps of the pick begins and ends")
    ] = False
    rendezvous: Annotated[
        str | None,
        Field(description="HOST:PORT of this host where the workers of all ranks come to; default: ranks run here"),
    ] = None
    secret_file: Annotated[
        Path | None, Field(description="file with the secret that workers share; default: AUTOTUNE_SECRET holds it")
    ] = None
    run_id: Annotated[
        str | None,
        Field(description="torchrun's --rdzv-id; default: the number of the Slurm job, or torchrun's default"),
    ] = None
    host_timeout: Annotated[
        float, BeforeValidator(parse_seconds), Field(gt=0, description="seconds for a host to come, or to come back")
    ] = 300.0
    seed: Annotated[int, Field(ge=0, description="seeds weights and data")] = 0

    @model_validator(mode="after")
    def _storage_is_a_database(self) -> Self:
        # Not a rule of the field alone: a complaint about a field repeats its value, which may hold a password.
        if self.storage is not None:
            try:
                storage_url.parse(self.storage.get_secret_value())
            except ValueError as error:
                raise ValueError(f"storage: {error}") from None
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if (self.device == "replay") != (self.profile is not None):
            raise ValueError("profile: --device replay and --profile FILE go together; give both or neither")
        if self.stages > self.layers:
            raise ValueError(
                f"stages: {self.stages} stages need at least one layer each, but layers is {self.layers};"
                " lower --stages or raise --layers"
            )
        if self.hidden is not None and self.heads is not None and self.hidden % self.heads:
            raise ValueError(f"heads: hidden {self.hidden} is not divisible by heads {self.heads}; change one of them")
        if self.micro_batch_size is None and self.micro_batches and max(self.micro_batches) > self.batch:
            raise ValueError(
                f"micro_batches: m = {max(self.micro_batches)} is more than the batch of {self.batch} sequences;"
                " lower --micro-batches or raise --batch"
            )
        return self

    def workload(self, device: str) -> Workload:
        """Settles the open sizes for ``device`` ("cpu" or "cuda"); raises UsageError where they do not agree."""
        names = ("layers", "stages", "batch", "optimizer", "norm", "seed")
        sizes = DEFAULT_SIZES[device] | {name: getattr(self, name) for name in names}
        sizes |= {name: value for name in DEFAULT_SIZES[device] if (value := getattr(self, name)) is not None}
        if self.hidden is not None and self.heads is None:
            sizes["heads"] = max(count for count in divisors(self.hidden) if count <= max(1, self.hidden // 16))
        if sizes["hidden"] % sizes["heads"]:
            raise UsageError(f"hidden {sizes['hidden']} is not divisible by heads {sizes['heads']}; set --hidden too")
        if device == "cpu" and sizes["precision"] != "fp32":
            raise UsageError(f"precision {sizes['precision']} needs a GPU; on the CPU use --precision fp32")
        return Workload(**sizes)

    def counts(self) -> tuple[int, ...]:
        """The candidate numbers of micro-batches, ascending, without repeats."""
        return tuple(sorted(set(self.micro_batches or divisors(self.batch))))


def shipped(kind: str = "") -> dict[str, Path]:
    """The files that ship with autotune, by name: scenarios (``cpu``, ``a100``, ``ci``), or ``networks``."""
    packaged = Path(str(resources.files("autotune"))) / "configs"
    folder = packaged if packaged.is_dir() else packaged.parents[1] / "configs"
    return {path.stem: path for path in sorted((folder / kind).glob("*.toml"))}


def read_toml(path: Path, kind: str = "") -> dict[str, Any]:
    """Reads the table of a config file, or of another ``kind`` that ships with autotune: a file or its shipped name."""
    known, what = shipped(kind), kind.removesuffix("s") or "config"
    path = path if path.exists() else known.get(str(path), path)
    try:
        return tomllib.loads(read_bytes(path).decode())
    except OSError as error:
        names = ", ".join(known)
        raise InputError(f"cannot read {what} {path}: {error.strerror}; give a TOML file or {names}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path} is not TOML: {error}") from None


def load_config(file: Path | None, flags: Mapping[str, Any]) -> Config:
    """Merges ``file`` and the ``flags`` that were given (None: not given) into a Config.

    In the file ``seq-len`` and ``seq_len`` are the same key.
    """
    table = {key.replace("-", "_"): value for key, value in (read_toml(file) if file is not None else {}).items()}
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        return Config.model_validate({**table, **given})
    except ValidationError as error:
        raise blame(error, file, given) from None


def blame(error: ValidationError, file: Path | None, given: Mapping[str, Any]) -> InputError | UsageError:
    """A usage error where a flag has part in the broken rule, else an error of the file."""
    first = error.errors()[0]
    message = explain(error)
    if not first["loc"]:  # a rule between fields: its message begins with the field that breaks it
        message = message.removeprefix("the record: ")
    field = str(first["loc"][0]) if first["loc"] else message.split(":")[0]
    partners = {
        "stages": ("layers", "stages"),
        "heads": ("hidden", "heads"),
        "micro_batches": ("batch", "micro_batches"),
        "profile": ("device", "profile"),
    }
    if any(name in given for name in partners.get(field, (field,))) or file is None:
        return UsageError("--" + message.replace("_", "-", message.split(":")[0].count("_")))
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(Config.model_fields))
        return InputError(f"config {file}: unknown key {first['loc'][0]!r}; the keys are {known}")
    return InputError(f"config {file}: {message}")
