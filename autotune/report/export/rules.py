"""What becomes of a user's config file: which keys of it contradict the new pipeline, and what it says of the job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from autotune.report.export import kinds
from autotune.report.export.edit.document import at_path, has_path
from autotune.report.export.kinds import Kind
from autotune.report.export.plan import Plan
from autotune.report.export.target import Settings
from autotune.report.export.targets import accelerate_file, gpt_neox_file

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Conflict:
    """A key that contradicts a new pipeline. ``holds(value, plan)``: True where its value does."""

    key: str
    why: str
    holds: Callable[[Any, Plan], bool] = lambda value, _: bool(value)


@dataclass(frozen=True)
class Ranks:
    """The number of all ranks in a file: the product of ``total``; of which ``others`` are other parallelism's."""

    total: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class FileRules:
    """A launcher's config file. ``settings``: its keys where they are others than the flags. ``replicas``: keys whose
    product is the number of replicas; ``ranks``: keys from which it follows; ``batch``: keys of the global batch, of a
    micro-batch and of m, from whose values it follows. ``dropped`` and ``refused``: keys that contradict the pipeline.
    ``said``: keys that its user should think of. ``only_if_there``: keys that are never added. ``has_dashes``: a dash
    may stand for an underscore. ``one_place``: what is said of keys that are added, where the launcher reads several
    files."""

    kind: Kind
    settings: Callable[[Plan, str], Settings] | None = None
    replicas: tuple[str, ...] = ()
    ranks: Ranks | None = None
    batch: tuple[str, str, str] | None = None
    seq_len: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    dropped: tuple[Conflict, ...] = ()
    refused: tuple[Conflict, ...] = ()
    said: tuple[Conflict, ...] = ()
    only_if_there: frozenset[str] = field(default_factory=frozenset)
    has_dashes: bool = False
    one_place: str = ""


def value_of(values: Values, dotted: str) -> Any:
    """Return the value of a dotted key; None where there is none."""
    return at_path(dict(values), tuple(dotted.split(".")))


def is_there(values: Values, dotted: str) -> bool:
    """Return True where a dotted key is in the file, whatever its value."""
    return has_path(dict(values), tuple(dotted.split(".")))


def count_of(values: Values, dotted: str) -> int | None:
    """Return the whole number of 1 or more that a key has; None where it has another value."""
    value = value_of(values, dotted)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def product_of(values: Values, dotted: tuple[str, ...], absent: int | None) -> int | None:
    """Return the product of keys, ``absent`` for one that is missing; None where one is not known."""
    counts = [count_of(values, one) if is_there(values, one) else absent for one in dotted]
    known = [count for count in counts if count is not None]
    return prod(known) if len(known) == len(dotted) else None


def differs(value: Any, usual: Any) -> bool:
    """Return True for a value that is there and not the usual one."""
    return value is not None and value != usual


def is_zero_2(value: Any, _: Plan) -> bool:
    """Return True for a stage of ZeRO that shards gradients."""
    return isinstance(value, int) and value >= 2


def megatron_conflicts(model: str) -> tuple[Conflict, ...]:
    """Return the keys under ``model`` that cut the layers otherwise, or group micro-batches for another pipeline."""
    own_cut = "it cuts the layers otherwise than was measured"
    cuts = (
        "pipeline_model_parallel_layout",
        "num_layers_in_first_pipeline_stage",
        "num_layers_in_last_pipeline_stage",
        "num_layers_per_virtual_pipeline_stage",
        "account_for_embedding_in_pipeline_split",
        "account_for_loss_in_pipeline_split",
    )
    group = Conflict(
        f"{model}.microbatch_group_size_per_vp_stage",
        "it groups micro-batches for another pipeline",
        lambda value, plan: differs(value, plan.stages),
    )
    return (*(Conflict(f"{model}.{name}", own_cut) for name in cuts), group)


def ramp(key: str) -> tuple[Conflict, ...]:
    """Return the keys of a ramp of the batch, during which m is another."""
    return (
        Conflict(key, "m grows with the batch, and what was measured is the full one: autotune ramp has the others"),
    )


def recomputed(key: str, usual: tuple[Any, ...]) -> tuple[Conflict, ...]:
    """Return the key by which a launcher recomputes, where what was measured recomputed nothing."""
    why = "it recomputes, and what was measured did not"
    return (Conflict(key, why, lambda value, plan: plan.recompute is None and value not in usual),)


ZERO = "DeepSpeed runs a pipeline only with stage 0 or 1"
OTHER_CUT = "it cuts the layers otherwise than was measured"
OTHER_SCHEDULE = "its schedule would run instead"

FILE_RULES: dict[str, FileRules] = {
    "megatron-bridge": FileRules(
        kinds.MEGATRON_BRIDGE,
        seq_len=("model.seq_length", "dataset.seq_length", "dataset.sequence_length"),
        layers=("model.num_layers",),
        dropped=megatron_conflicts("model"),
        said=ramp("train.rampup_batch_size") + recomputed("model.recompute_granularity", ("",)),
    ),
    "nemo": FileRules(
        kinds.NEMO_2,
        ranks=Ranks(
            ("trainer.devices", "trainer.num_nodes"),
            ("trainer.strategy.tensor_model_parallel_size", "trainer.strategy.context_parallel_size"),
        ),
        seq_len=("data.seq_length", "model.config.seq_length"),
        layers=("model.config.num_layers",),
        dropped=megatron_conflicts("trainer.strategy"),
        said=ramp("data.rampup_batch_size"),
    ),
    "automodel": FileRules(
        kinds.AUTOMODEL,
        replicas=("distributed.dp_size",),
        seq_len=("dataset.seq_len", "dataset.seq_length", "packed_sequence.packed_sequence_size"),
        dropped=(
            Conflict("distributed.pipeline.pp_schedule_csv", OTHER_SCHEDULE),
            Conflict("distributed.pipeline.module_fqns_per_model_part", OTHER_CUT),
            Conflict("distributed.pipeline.pp_batch_size", "the batch of a replica is step_scheduler.local_batch_size"),
        ),
        refused=(
            Conflict("autopipeline", "an older Automodel's; move it to distributed.pipeline first"),
            Conflict(
                "distributed.strategy",
                "only fsdp2 has a pipeline in NeMo Automodel",
                lambda value, _: value in ("ddp", "megatron_fsdp"),
            ),
        ),
    ),
    "deepspeed": FileRules(
        kinds.DEEPSPEED,
        batch=("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
        refused=(
            Conflict("zero_optimization.stage", ZERO, is_zero_2),
            Conflict("elasticity.enabled", "DeepSpeed's elasticity chooses the batch itself, and runs no pipeline"),
        ),
        dropped=(
            Conflict(
                "pipeline.stages",
                "it is another number of stages",
                lambda value, plan: value not in ("auto", plan.stages),
            ),
        ),
    ),
    "gpt-neox": FileRules(
        kinds.GPT_NEOX,
        settings=gpt_neox_file,
        ranks=Ranks(("global_num_gpus",), ("model_parallel_size",)),
        batch=("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
        seq_len=("seq_length",),
        layers=("num_layers",),
        refused=(
            Conflict("zero_optimization.stage", ZERO, is_zero_2),
            Conflict("elasticity.enabled", "DeepSpeed's elasticity chooses the batch itself, and runs no pipeline"),
        ),
        said=recomputed("checkpoint_activations", (False,)),
        only_if_there=frozenset({"train_batch_size"}),
        has_dashes=True,
        one_place="where another of your files has one, remove it there: GPT-NeoX takes a key from one file only",
    ),
    "torchtitan": FileRules(
        kinds.TORCHTITAN,
        replicas=("parallelism.data_parallel_replicate_degree", "parallelism.data_parallel_shard_degree"),
        seq_len=("training.seq_len",),
        said=recomputed("activation_checkpoint.mode", ("none",)),
        dropped=(
            Conflict("parallelism.pipeline_parallel_split_points", OTHER_CUT),
            Conflict("parallelism.module_fqns_per_model_part", OTHER_CUT),
            Conflict("experimental.pipeline_parallel_split_points", OTHER_CUT),
            Conflict(
                "parallelism.pipeline_parallel_first_stage_less_layers", OTHER_CUT, lambda value, _: differs(value, 1)
            ),
            Conflict(
                "parallelism.pipeline_parallel_last_stage_less_layers", OTHER_CUT, lambda value, _: differs(value, 1)
            ),
            Conflict("parallelism.pipeline_parallel_schedule_csv", OTHER_SCHEDULE),
        ),
    ),
    "accelerate": FileRules(
        kinds.ACCELERATE,
        settings=accelerate_file,
        ranks=Ranks(("num_processes",), ("megatron_lm_config.megatron_lm_tp_degree",)),
        refused=(
            Conflict(
                "distributed_type",
                "only MEGATRON_LM has a pipeline in accelerate",
                lambda value, _: value != "MEGATRON_LM",
            ),
        ),
    ),
    "nanotron": FileRules(
        kinds.NANOTRON,
        replicas=("parallelism.dp",),
        said=recomputed("parallelism.recompute_layer", (False,)),
        seq_len=("tokens.sequence_length",),
        layers=("model.model_config.num_hidden_layers",),
    ),
}
"""By the name of the target; a launcher that is not here reads no config file."""
