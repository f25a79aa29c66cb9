"""TOML + flags -> one validated, frozen Config; and the Workload record that it settles.

A flag wins over the file. A rule broken by a flag is a usage error (exit 2); one broken by the file alone is a config
error (exit 3).
"""

import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from importlib import resources
from math import lcm
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, SecretStr, ValidationError, model_validator

from autotune import storage_url
from autotune.errors import InputError, UsageError
from autotune.quantities import parse_bytes, parse_quantity, parse_seconds
from autotune.records.base import TypedRecord, read_bytes
from autotune.records.complaint import UNKNOWN, complaints, explain, place_of
from autotune.records.job.recompute import RecomputeChoice
from autotune.records.job.split import parse_split, show_split
from autotune.records.job.workload import (
    Argument,
    Library,
    ModelPlace,
    ModelRequest,
    Norm,
    Optimizer,
    Precision,
    WorkloadConfig,
)
from autotune.records.verdict import Objective
from autotune.schedule_spec import SCHEDULE_NAMES, ScheduleName, schedule_named, stages_per_rank
from autotune.settings import SETTINGS

DeviceKind = Literal["auto", "cpu", "cuda", "replay"]
SamplerName = Literal["cost-model", "tpe", "gp", "random", "grid"]

LEAST_BARE = 2**20
"""Bytes of a memory limit from which on it needs no unit."""
FLAGS_ALONE = {"model", "model_args", "python"}
OPERATIONS = {"": 1, "g": 10**9, "t": 10**12, "p": 10**15, "gflops": 10**9, "tflops": 10**12, "pflops": 10**15}


def parse_limit(value: Any) -> Any:
    """Return the bytes of a memory limit; refuses ``8``, where a unit has been forgotten."""
    number = parse_bytes(value)
    refuse_bare(value, number)
    return number


def refuse_bare(given: Any, number: Any) -> None:
    """Raise ValueError for a memory limit without a unit that no device could have."""
    text = str(given).strip()
    if isinstance(number, int | float) and 0 < number < LEAST_BARE and not text[-1].isalpha():
        raise ValueError(f"{text} bytes? No device has so little; give {text}GB or {text}GiB")


def parse_share(value: Any) -> Any:
    """Return a share of one from ``"5%"`` or a plain number."""
    number = parse_quantity(value, {"%": 1}, "5%")
    return number / 100 if isinstance(value, str) and "%" in value else number


def parse_operations(value: Any) -> Any:
    """Return operations per second from ``"312T"``, ``"1.5P"`` or a plain number."""
    if isinstance(value, str) and re.fullmatch(r"[\d.]+[eE][+]?\d+", value.strip()):
        return float(value)
    return parse_quantity(value, OPERATIONS, "312T")


def parse_place(value: Any) -> Any:
    """Return what ``FILE.py:NAME``, ``package.module:NAME`` or ``hf:PATH`` says; refuses other text.

    Files are where they are seen from here, whatever the folder that the ranks run in.
    """
    if not isinstance(value, str):
        return value
    library, _, path = value.partition(":")
    if library == Library.HUGGING_FACE and path:
        return ModelPlace(library=Library.HUGGING_FACE, place=str(Path(path).absolute()), name="")
    place, _, name = value.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError("write FILE.py:FUNCTION, package.module:FUNCTION or hf:CONFIG.json")
    where = str(Path(place).absolute()) if place.endswith(".py") else place
    return ModelPlace(library=Library.CODE, place=where, name=name)


def parse_arguments(value: Any) -> Any:
    """Return ``{"dim": 512, "rope": True}`` for ``"dim=512,rope=true"``: values as TOML has them, else text."""
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    for part in split_commas(value):
        name, equals, text = part.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError("write KEY=VALUE,... such as dim=512,dropout=0")
        try:
            read = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            read = text.strip()
        found[name.strip()] = read if isinstance(read, bool | int | float) else str(read)
    return found


def split_commas(value: Any) -> Any:
    """Return ``["1", "2", "4"]`` for ``"1,2,4"``; lists and single numbers become lists."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def split_words(value: Any) -> Any:
    """Return the words of a command that is one text, as a shell would take them."""
    return shlex.split(value) if isinstance(value, str) else value


def one_or_more(value: Any) -> Any:
    """Return a list of one text for the text."""
    return [value] if isinstance(value, str) else value


def expand_schedules(value: Any) -> Any:
    """Return every schedule for ``"all"``, and each by its own name, in whatever case it is written."""
    names = split_commas(value)
    if not isinstance(names, list | tuple):
        return names
    if [str(name).lower() for name in names] == ["all"]:
        return list(SCHEDULE_NAMES)
    return [schedule_named(name) or name if isinstance(name, str) else name for name in names]


def divisors(number: int) -> tuple[int, ...]:
    """Return every divisor of ``number``, ascending."""
    return tuple(candidate for candidate in range(1, number + 1) if number % candidate == 0)


DEFAULT_SIZES: dict[str, dict[str, Any]] = {
    # A step of about half a second on two cores.
    "cpu": {"hidden": 64, "heads": 4, "seq_len": 32, "vocab": 512, "precision": "fp32"},
    # 2.6 billion weights: 47 GB with gradients and AdamW's state, and 0.8 GB of activations per sequence and 12 layers.
    # On 4 x 80 GB 1F1B fits with every m from 4 up, on 4 x 40 GB from 16 up (`python -m tests.bench defaults`).
    "cuda": {"hidden": 2048, "heads": 16, "seq_len": 1024, "vocab": 50304, "precision": "bf16"},
}


def setting(name: str, **rules: Any) -> Any:
    """Return the field of a key: default and description from the table of settings, and ``rules`` for its value."""
    row = SETTINGS[name]
    return Field(default=row.default, description=row.description, **rules)


class Config(TypedRecord):
    """Everything a user can set, from flags and TOML. Sizes left out are settled by the device (``DEFAULT_SIZES``)."""

    model: Annotated[ModelPlace | None, BeforeValidator(parse_place)] = setting("model")
    model_args: Annotated[dict[str, Argument] | None, BeforeValidator(parse_arguments)] = setting("model_args")
    peak_flops: Annotated[float | None, BeforeValidator(parse_operations)] = setting("peak_flops", gt=0)
    layers: PositiveInt = setting("layers")
    stages: PositiveInt = setting("stages")
    hidden: PositiveInt | None = setting("hidden")
    heads: PositiveInt | None = setting("heads")
    seq_len: PositiveInt | None = setting("seq_len")
    vocab: PositiveInt | None = setting("vocab")
    batch: PositiveInt = setting("batch")
    data_parallel: PositiveInt = setting("data_parallel")
    precision: Precision | None = setting("precision")
    optimizer: Optimizer = setting("optimizer")
    norm: Norm = setting("norm")
    micro_batches: Annotated[tuple[PositiveInt, ...] | None, BeforeValidator(split_commas)] = setting(
        "micro_batches", min_length=1
    )
    micro_batch_size: PositiveInt | None = setting("micro_batch_size")
    min_micro_batch_size: PositiveInt = setting("min_micro_batch_size")
    schedule: Annotated[tuple[ScheduleName, ...], BeforeValidator(expand_schedules)] = setting("schedule", min_length=1)
    virtual_stages: Annotated[tuple[PositiveInt, ...], BeforeValidator(split_commas)] = setting(
        "virtual_stages", min_length=1
    )
    split: Annotated[tuple[PositiveInt, ...] | None, BeforeValidator(parse_split)] = setting("split", min_length=1)
    balance: bool = setting("balance")
    recompute: RecomputeChoice = setting("recompute", validate_default=True)
    profile: Path | None = setting("profile")
    device: DeviceKind = setting("device")
    memory_limit: Annotated[PositiveInt | None, BeforeValidator(parse_limit)] = setting("memory_limit")
    python: str | None = setting("python")
    budget: Annotated[float | None, BeforeValidator(parse_seconds)] = setting("budget", gt=0)
    trials: PositiveInt | None = setting("trials")
    exhaustive: bool = setting("exhaustive")
    sampler: SamplerName = setting("sampler")
    objective: Objective = setting("objective")
    tolerance: Annotated[float | None, BeforeValidator(parse_share)] = setting("tolerance", gt=0, lt=1)
    explore_limit: bool = setting("explore_limit")
    out: Path = setting("out")
    state_dir: Path = setting("state_dir")
    storage: SecretStr | None = setting("storage")
    heartbeat: Annotated[float, BeforeValidator(parse_seconds)] = setting("heartbeat", ge=1)
    fresh: bool = setting("fresh")
    record_timeline: bool = setting("record_timeline")
    rendezvous: str | None = setting("rendezvous")
    secret_file: Path | None = setting("secret_file")
    run_id: str | None = setting("run_id")
    host_timeout: Annotated[float, BeforeValidator(parse_seconds)] = setting("host_timeout", gt=0)
    seed: int = setting("seed", ge=0)
    command: Annotated[tuple[str, ...] | None, BeforeValidator(split_words)] = setting("command")
    read: str = setting("read")
    log: Annotated[tuple[str, ...] | None, BeforeValidator(one_or_more)] = setting("log")
    set: Annotated[tuple[str, ...] | None, BeforeValidator(one_or_more)] = setting("set")
    present: PositiveInt | None = setting("present")
    trial_args: str | None = setting("trial_args")
    setup: str | None = setting("setup")
    prepare: str | None = setting("prepare")
    cleanup: str | None = setting("cleanup")
    start_limit: Annotated[float, BeforeValidator(parse_seconds)] = setting("start_limit", gt=0)
    no_probe: bool = setting("no_probe")

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
        if (self.device == "replay") != (self.profile is not None and not self.command):
            raise ValueError(
                "profile: --device replay and --profile FILE go together (a training command may have a profile alone,"
                " as its prior); give both or neither"
            )
        if self.present is not None and not self.command:
            raise ValueError("present: only of a training command of yours, after --; leave it out, or give one")
        if self.split is not None and len(self.split) % self.stages:
            raise ValueError(
                f"split: {show_split(self.split)} has {len(self.split)} stages, which {self.stages} ranks cannot hold"
                " equally many of; give a layer count for each stage, or change --stages"
            )
        if self.model is not None:
            return self._model_brings_its_sizes()
        if self.stages > self.layers and not self.command:
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

    def _model_brings_its_sizes(self) -> Self:
        for name in ("layers", "hidden", "heads", "vocab", "norm"):
            if name in self.model_fields_set:
                raise ValueError(f"{name}: a model of yours has its own, which --model-args may change; leave it out")
        if self.profile is not None:
            raise ValueError("model: --device replay runs recorded times and no model; leave --model out")
        return self

    def model_request(self, device: str) -> ModelRequest:
        """Return what ranks on ``device`` are to build of the user's model, before anybody has looked at it."""
        assert self.model is not None, "there is no model of the user's"
        return ModelRequest(
            source=self.model,
            arguments=self.model_args or {},
            stages=self.stages,
            most_stages=self.stages * lcm(*stages_per_rank(self.schedule, self.virtual_stages)),
            batch=self.batch,
            optimizer=self.optimizer,
            precision=self.precision,
            seq_len=self.seq_len or DEFAULT_SIZES[device]["seq_len"],
            seed=self.seed,
        )

    def workload(self, device: str) -> WorkloadConfig:
        """Settle the open sizes for ``device`` ("cpu" or "cuda"); raise UsageError where they do not agree."""
        names = ("layers", "stages", "batch", "optimizer", "norm", "seed")
        sizes = DEFAULT_SIZES[device] | {name: getattr(self, name) for name in names}
        sizes |= {name: value for name in DEFAULT_SIZES[device] if (value := getattr(self, name)) is not None}
        sizes |= {"data_parallel": self.data_parallel} if self.data_parallel > 1 else {}
        if self.hidden is not None and self.heads is None:
            sizes["heads"] = max(count for count in divisors(self.hidden) if count <= max(1, self.hidden // 16))
        if sizes["hidden"] % sizes["heads"]:
            raise UsageError(f"hidden {sizes['hidden']} is not divisible by heads {sizes['heads']}; set --hidden too")
        return WorkloadConfig.gpt(**sizes)

    def all_counts(self) -> tuple[int, ...]:
        """Return the numbers of micro-batches to try; m = 1 is always one, because it shows what pipelining buys."""
        return self.counts() if self.micro_batch_size else tuple(sorted({1, *self.counts()}))

    @property
    def interpreter(self) -> str:
        """The Python that ranks run under."""
        return self.python or sys.executable

    def counts(self) -> tuple[int, ...]:
        """Return the candidate numbers of micro-batches, ascending, without repeats."""
        return tuple(sorted(set(self.micro_batches or divisors(self.batch))))


def shipped(kind: str = "") -> dict[str, Path]:
    """Return the files that ship with autotune, by name: scenarios (``cpu``, ``a100``, ``ci``), or ``networks``."""
    packaged = Path(str(resources.files("autotune"))) / "configs"
    folder = packaged if packaged.is_dir() else packaged.parents[1] / "configs"
    return {path.stem: path for path in sorted((folder / kind).glob("*.toml"))}


def read_toml(path: Path, kind: str = "") -> dict[str, Any]:
    """Read the table of a config file, or of another ``kind`` that ships with autotune: a file or its shipped name."""
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
    """Merge ``file`` and the ``flags`` that were given (None: not given) into a Config.

    In the file ``seq-len`` and ``seq_len`` are the same key. What runs a program is none: a file may come from anybody.
    """
    table = {key.replace("-", "_"): value for key, value in (read_toml(file) if file is not None else {}).items()}
    given = {key: value for key, value in flags.items() if value is not None}
    for name in FLAGS_ALONE & table.keys():
        raise InputError(
            f"config {file}: unknown key {name!r}: no file may name code or a program; give it on the command line,"
            f" with --{name.replace('_', '-')}"
        )
    try:
        return Config.model_validate({**table, **given})
    except ValidationError as error:
        raise blame(error, file, given) from None


def blame(error: ValidationError, file: Path | None, given: Mapping[str, Any]) -> InputError | UsageError:
    """Return a usage error where a flag has part in the broken rule, else an error of the file."""
    first = complaints(error)[0]
    message = explain(error, Config)
    field = str(first["loc"][0]) if first["loc"] else message.split(":")[0]
    partners = {
        "stages": ("layers", "stages"),
        "split": ("split", "stages"),
        "heads": ("hidden", "heads"),
        "micro_batches": ("batch", "micro_batches"),
        "profile": ("device", "profile"),
    }
    if any(name in given for name in partners.get(field, (field,))) or file is None:
        return UsageError(f"--{field.replace('_', '-')}{message_of_flag(first, message)}")
    return InputError(f"config {file}: {message}")


def message_of_flag(complaint: Mapping[str, Any], message: str) -> str:
    """Return a message without its path, which says of a flag no more than its name: ``: it must be ...``."""
    if complaint["type"] in UNKNOWN:
        return f": {message}"
    path = ".".join(map(str, place_of(complaint))) or message.split(":")[0]
    return message.removeprefix(path)
