"""Each launcher: which of its keys say what, what it cannot do, and the versions whose sources say so."""

from typing import get_args

from autotune.records.job.recompute import Recompute, show_modes
from autotune.records.job.split import show_split
from autotune.report.export.automodel import SCHEDULES, automodel, automodel_limit, automodel_text
from autotune.report.export.megatron import megatron_keys, megatron_lm, megatron_recompute, whole_groups
from autotune.report.export.plan import Plan
from autotune.report.export.script import torch_limit, torch_script
from autotune.report.export.target import Settings, Target, even_layers, own_cut
from autotune.report.export.torchtitan import torchtitan, torchtitan_limit, torchtitan_text
from autotune.schedule_spec import ScheduleName


def deepspeed(plan: Plan, _: str, __: str) -> Settings:
    """Return JSON settings; m is the number of accumulation steps."""
    return {
        "train_batch_size": plan.global_batch,
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.micro_batches,
    }


def nanotron(plan: Plan, engine: str, _: str) -> Settings:
    """Return YAML settings; the engine is always set, because nanotron's own default is all forwards before all
    backwards."""
    return {
        "parallelism.dp": plan.data_parallel,
        "parallelism.pp": plan.stages,
        "parallelism.pp_engine": engine,
        "tokens.batch_accumulation_per_replica": plan.micro_batches,
        "tokens.micro_batch_size": plan.micro_batch_size,
    }


def accelerate(plan: Plan, _: str, __: str) -> Settings:
    """Return flags of ``accelerate launch`` for its Megatron plugin."""
    return {
        "use_megatron_lm": True,
        "megatron_lm_pp_degree": plan.stages,
        "megatron_lm_num_micro_batches": plan.micro_batches,
    }


def accelerate_file(plan: Plan, _: str) -> Settings:
    """Return the same for accelerate's YAML, which starts as many processes as it says."""
    return {
        "megatron_lm_config.megatron_lm_pp_degree": plan.stages,
        "megatron_lm_config.megatron_lm_num_micro_batches": plan.micro_batches,
    }


def gpt_neox(plan: Plan, _: str, __: str) -> Settings:
    """Return YAML settings; the batch follows from the number of GPUs."""
    return {
        "pipe_parallel_size": plan.stages,
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.micro_batches,
    }


def gpt_neox_file(plan: Plan, _: str) -> Settings:
    """Return the same with the batch, which is set only where the file has it."""
    return {"train_batch_size": plan.global_batch} | gpt_neox(plan, "", "")


def colossal(plan: Plan, style: str, _: str) -> Settings:
    """Return arguments of ``HybridParallelPlugin``."""
    several = {"num_model_chunks": plan.virtual_stages} if plan.virtual_stages > 1 else {}
    return {"tp_size": 1, "pp_size": plan.stages, "pp_style": style, "num_microbatches": plan.micro_batches, **several}


def colossal_limit(plan: Plan) -> str | None:
    """Return what its schedules assert."""
    too_few = f"needs m of at least {plan.stages}, one per stage" if plan.micro_batches < plan.stages else None
    return whole_groups(plan) or too_few or own_cut(plan)


def plain(plan: Plan, schedule: str, _: str) -> Settings:
    """Return the facts themselves, for scripts."""
    return {
        "micro_batches": plan.micro_batches,
        "micro_batch_size": plan.micro_batch_size,
        "replica_batch": plan.replica_batch,
        "global_batch": plan.global_batch,
        "data_parallel": plan.data_parallel,
        "stages": plan.stages,
        "virtual_stages": plan.virtual_stages,
        **({"split": show_split(plan.split)} if plan.split else {}),
        **({"recompute": show_modes(plan.recompute)} if plan.recompute else {}),
        "schedule": schedule,
    }


ONE_F_ONE_B = {"1F1B": "1F1B"}
MEGATRON = ONE_F_ONE_B | {"Interleaved1F1B": "interleaved"}
TORCH = {name: name for name in get_args(ScheduleName)}
MID_2026 = "as of mid 2026"  # when its sources were read
YAML = (".yaml", ".yml")

TARGETS = {
    target.name: target
    for target in (
        Target(
            "megatron-lm",
            "Megatron-LM",
            MID_2026,
            "flags",
            MEGATRON,
            megatron_lm,
            whole_groups,
            recompute=megatron_recompute("recompute-"),
        ),
        Target(
            "megatron-bridge",
            "Megatron-Bridge",
            MID_2026,
            "overrides",
            MEGATRON,
            megatron_keys("model", "train"),
            whole_groups,
            YAML,
            recompute=megatron_recompute("model.recompute_", "_"),
        ),
        Target(
            "nemo",
            "NeMo",
            "2, " + MID_2026,
            "overrides",
            MEGATRON,
            megatron_keys("trainer.strategy", "data"),
            whole_groups,
            YAML,
        ),
        Target(
            "deepspeed",
            "DeepSpeed",
            MID_2026,
            "json",
            ONE_F_ONE_B,
            deepspeed,
            own_cut,
            files=(".json",),
            in_code=lambda plan: f"the stages are set in code: PipelineModule(..., num_stages={plan.stages})",
        ),
        Target(
            "torchtitan",
            "torchtitan",
            "0.2, 0.3 and main since August 2026",
            "flags",
            TORCH,
            torchtitan,
            torchtitan_limit,
            (".toml",),
            files_until="0.2",
            in_code=torchtitan_text,
            recompute={
                Recompute.SELECTIVE: {
                    "activation_checkpoint.mode": "selective",
                    "activation_checkpoint.selective_ac_option": "op",
                },
                Recompute.FULL: {"activation_checkpoint.mode": "full"},
            },
            default_version="0.3",
        ),
        Target(
            "nanotron",
            "nanotron",
            MID_2026,
            "yaml",
            {"1F1B": "1f1b", "GPipe": "afab"},
            nanotron,
            own_cut,
            YAML,
            recompute={Recompute.FULL: {"parallelism.recompute_layer": True}},
        ),
        Target(
            "automodel",
            "NeMo Automodel",
            MID_2026,
            "yaml",
            SCHEDULES,
            automodel,
            automodel_limit,
            YAML,
            in_code=automodel_text,
        ),
        Target(
            "gpt-neox",
            "GPT-NeoX",
            MID_2026,
            "yaml",
            ONE_F_ONE_B,
            gpt_neox,
            own_cut,
            YAML,
            recompute={Recompute.FULL: {"checkpoint_activations": True, "checkpoint_num_layers": 1}},
        ),
        Target(
            "accelerate",
            "accelerate",
            MID_2026,
            "flags",
            ONE_F_ONE_B,
            accelerate,
            even_layers,
            YAML,
            in_code=lambda plan: f"the micro-batch size is the data loader's: batch_size={plan.micro_batch_size}",
        ),
        Target(
            "colossalai",
            "Colossal-AI",
            MID_2026,
            "python",
            {"1F1B": "1f1b", "Interleaved1F1B": "interleaved"},
            colossal,
            colossal_limit,
            call="HybridParallelPlugin",
        ),
        Target("torch", "torch", "2.13", "python", TORCH, plain, torch_limit, script=torch_script),
        Target("shell", "shell variables", "", "shell", TORCH, plain),
        Target("key-value", "key=value", "", "overrides", TORCH, plain),
    )
}
