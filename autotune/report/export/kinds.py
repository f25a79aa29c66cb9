"""What kind of config file a file is, by what is in it: whose it is, of which generation, and the key that shows it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from autotune.report.export.edit.document import Document, Language, at_path, has_path

Sign = Callable[[dict[str, Any]], str | None]
"""Gives the key that shows a kind, or None where a file has no such key."""


@dataclass(frozen=True)
class Kind:
    """One kind of file: a launcher's, in one generation of its keys. Any of the ``signs`` shows it."""

    title: str
    signs: tuple[Sign, ...]
    languages: tuple[Language, ...] = (Language.YAML,)
    advice: str = ""

    def shown_by(self, document: Document) -> str | None:
        """Return the key that shows that a file is of this kind; None where nothing does."""
        if document.language not in self.languages:
            return None
        return next((key for sign in self.signs if (key := sign(document.values))), None)


def keys(*dotted: str) -> Sign:
    """Return the sign that all of these keys are there; the first is the one that is named."""

    def sign(values: dict[str, Any]) -> str | None:
        return dotted[0] if all(has_path(values, tuple(one.split("."))) for one in dotted) else None

    return sign


def tables(*dotted: str) -> Sign:
    """Return the sign that all of these are tables of keys; the first is the one that is named."""

    def sign(values: dict[str, Any]) -> str | None:
        return dotted[0] if all(isinstance(at_path(values, tuple(one.split("."))), dict) for one in dotted) else None

    return sign


def of(place: str, pattern: str) -> Sign:
    """Return the sign that a key of the table at ``place`` matches a pattern; the outermost table is ``""``."""

    def sign(values: dict[str, Any]) -> str | None:
        table = at_path(values, tuple(place.split("."))) if place else values
        names = [str(key) for key in table] if isinstance(table, dict) else []
        found = next((name for name in names if re.fullmatch(pattern, name)), None)
        return found and f"{place}.{found}".lstrip(".")

    return sign


def says(key: str, pattern: str) -> Sign:
    """Return the sign that a key of this name, however deep, has a text that matches a pattern."""

    def sign(values: dict[str, Any]) -> str | None:
        for path, value in leaves(values):
            if path[-1] == key and isinstance(value, str) and re.match(pattern, value):
                return f"{'.'.join(path)}: {value}"
        return None

    return sign


def filled_in(values: dict[str, Any]) -> str | None:
    """Return the key that says auto, but those of DeepSpeed's own pipeline and autotuner."""
    for path, value in leaves(values):
        if value == "auto" and path[0] not in ("pipeline", "autotuning"):
            return f"{'.'.join(path)}: auto"
    return None


def leaves(values: Any, path: tuple[str, ...] = ("",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every single value, with the keys that lead to it."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from leaves(value, (*(part for part in path if part), str(key)))
    else:
        yield path, values


JSON, YAML, TOML = (Language.JSON,), (Language.YAML,), (Language.TOML,)
ANY = tuple(Language)
DEEPSPEED_KEYS = (
    "train_batch_size|train_micro_batch_size_per_gpu|gradient_accumulation_steps|zero_optimization|fp16|bf16|bfloat16"
    "|gradient_clipping|steps_per_print|wall_clock_breakdown|zero_allow_untested_optimizer|amp|flops_profiler"
)
NEOX_KEYS = "(pipe|model)[-_]parallel[-_]size|attention[-_]config|rotary[-_]pct|pipe[-_]partition[-_]method"

NEMO_1 = Kind(
    "NeMo 1",
    (
        tables("exp_manager", "trainer"),
        keys("model.micro_batch_size", "trainer"),
        keys("model.global_batch_size", "trainer"),
        keys("model.restore_from_path", "trainer"),
        keys("training.exp_manager"),
        keys("model.data.train_ds.micro_batch_size"),
    ),
)
AUTOMODEL = Kind(
    "NeMo Automodel",
    (
        keys("step_scheduler.local_batch_size"),
        keys("step_scheduler.global_batch_size"),
        says("_target_", "nemo_automodel"),
        tables("distributed.pipeline"),
        tables("step_scheduler"),
    ),
)
NEMO_2 = Kind(
    "NeMo 2",
    (
        tables("trainer.strategy"),
        keys("data.micro_batch_size", "trainer"),
        keys("data.global_batch_size", "trainer"),
    ),
)
MEGATRON_BRIDGE = Kind(
    "Megatron-Bridge",
    (
        keys("train.micro_batch_size"),
        keys("train.global_batch_size"),
        keys("train.train_iters"),
        keys("model.pipeline_model_parallel_size", "train"),
        says("_target_", r"megatron\.bridge"),
    ),
)
NANOTRON = Kind(
    "nanotron",
    (
        keys("tokens.micro_batch_size", "parallelism"),
        keys("tokens.batch_accumulation_per_replica", "parallelism"),
        keys("tokens.sequence_length", "parallelism"),
        keys("parallelism.pp_engine"),
    ),
)
TORCHTITAN = Kind(
    "torchtitan up to 0.2",
    (
        keys("training.local_batch_size"),
        tables("parallelism"),
    ),
    TOML,
)
TORCHTITAN_2024 = Kind(
    "torchtitan before July 2025",
    (
        keys("training.batch_size"),
        keys("training.pipeline_parallel_degree"),
        keys("training.tensor_parallel_degree"),
        keys("training.data_parallel_degree"),
        of("experimental", "pipeline_parallel_.*|context_parallel_degree|enable_async_tensor_parallel"),
        of("training", "data_parallel_(shard|replicate)_degree|enable_float8.*"),
    ),
    TOML,
    advice="its keys have other names since; move it to 0.2 first",
)
TORCHTITAN_OTHER = Kind("torchtitan", (tables("training", "model"), keys("job.dump_folder")), TOML)
DEEPSPEED = Kind("DeepSpeed", (of("", DEEPSPEED_KEYS),), JSON)
GPT_NEOX = Kind("GPT-NeoX", (of("", NEOX_KEYS),), (Language.YAML, Language.JSON))
ACCELERATE = Kind(
    "accelerate",
    (
        keys("distributed_type"),
        keys("compute_environment"),
        of("", "(megatron_lm|fsdp|deepspeed)_config"),
    ),
)
"""What the targets of ``--to`` take, and the kinds that are told apart from them."""

ORDER = (
    Kind("NeMo 2, with its strategy beside the trainer", (tables("strategy", "trainer"),), YAML),
    Kind("Megatron-LM's tests", (keys("MODEL_ARGS"), keys("TEST_TYPE"), keys("products")), YAML),
    Kind("Megatron-LM's --yaml-cfg", (tables("model_parallel"), tables("language_model")), YAML),
    Kind("verl", (keys("actor_rollout_ref"),), YAML),
    Kind("torchtune", (says("_component_", r"torchtune\."),), YAML),
    NEMO_1,
    Kind("axolotl", (keys("base_model"), keys("datasets", "micro_batch_size"), keys("datasets", "adapter")), YAML),
    Kind(
        "LLaMA-Factory or Hugging Face's Trainer",
        (keys("per_device_train_batch_size"), keys("model_name_or_path"), keys("output_dir", "learning_rate")),
        ANY,
    ),
    Kind("a Hugging Face model", (keys("model_type"), keys("architectures"), keys("transformers_version")), JSON),
    Kind("a tokenizer", (keys("tokenizer_class"), keys("added_tokens"), keys("bos_token")), JSON),
    Kind(
        "Hugging Face's Trainer, which fills in what says auto and runs no pipeline",
        (filled_in,),
        JSON,
    ),
    Kind("DeepSpeed's autotuner", (keys("autotuning"),), JSON),
    ACCELERATE,
    AUTOMODEL,
    NEMO_2,
    NANOTRON,
    GPT_NEOX,
    MEGATRON_BRIDGE,
    TORCHTITAN_2024,
    TORCHTITAN,
    TORCHTITAN_OTHER,
    DEEPSPEED,
    Kind(
        "GPT-NeoX without its pipe_parallel_size, which is in another file",
        (of("", "train[-_]micro[-_]batch[-_]size[-_]per[-_]gpu|zero[-_]optimization"),),
        YAML,
    ),
)
"""Every kind that is known, the one that shows first before another that it could be taken for."""


def kind_of(document: Document) -> tuple[Kind, str] | None:
    """Return the kind of a file and the key that shows it; None where no kind that is known does."""
    for kind in ORDER:
        if key := kind.shown_by(document):
            return kind, key
    return None


def foreign(document: Document, wanted: Kind) -> str | None:
    """Return why a file is not of the kind that is wanted, as a clause; None where it is, or holds nothing at all."""
    if not document.values:
        return None
    found = kind_of(document)
    if found is None:
        first = next(iter(document.values))
        return f"nothing in it is {wanted.title}'s (its first key is {str(first)!r})"
    kind, key = found
    if kind is wanted:
        return None
    advice = f"; {kind.advice}" if kind.advice else ""
    return f"it is of {kind.title}, as {key} shows, not of {wanted.title}{advice}"
