"""Megatron-LM, and Megatron-Bridge and NeMo, which have its keys under names of their own."""

from collections.abc import Callable

from autotune.records.job.recompute import Recompute
from autotune.records.job.split import is_even, to_megatron
from autotune.report.export.plan import Plan
from autotune.report.export.target import Settings


def megatron_layout(plan: Plan) -> str | None:
    """Return the layout string of a cut that Megatron does not arrive at by itself: it gives every stage as many layers
    (megatron/core/transformer/pipeline_parallel_layer_layout.py)."""
    cut = plan.layers_by_stage
    return to_megatron(cut) if cut is not None and not is_even(cut) else None


def whole_groups(plan: Plan) -> str | None:
    """Return why not where micro-batches do not go in groups of p, of which none may be smaller."""
    if plan.schedule == "Interleaved1F1B" and plan.micro_batches % plan.stages:
        return f"interleaves only where m is a multiple of the {plan.stages} ranks"
    return None


def megatron_lm(plan: Plan, _: str, __: str) -> Settings:
    """Return flags; m follows from the global batch, and the stages of a rank from a layout where there is one."""
    layout = megatron_layout(plan)
    several = {"num-virtual-stages-per-pipeline-rank": plan.virtual_stages} if plan.virtual_stages > 1 else {}
    return {
        "pipeline-model-parallel-size": plan.stages,
        **({"pipeline-model-parallel-layout": layout} if layout else several),
        "micro-batch-size": plan.micro_batch_size,
        "global-batch-size": plan.global_batch,
    }


RAMP = "--step-batch-size-schedule"


def beside_ramp(settings: Settings, command: str | None) -> tuple[Settings, list[str]]:
    """Return the flags of Megatron-LM without the global batch, and a note, where the command of the run has a ramp of
    the batch: Megatron-LM refuses the two together (megatron/training/arguments.py, validate_args)."""
    if RAMP not in (command or ""):
        return settings, []
    left = {key: value for key, value in settings.items() if key != "global-batch-size"}
    note = f"--global-batch-size is left out: Megatron-LM refuses it beside {RAMP}, whose last batch it is"
    return left, [note] if left != settings else []


def megatron_keys(model: str, data: str) -> Callable[[Plan, str, str], Settings]:
    """Return the settings of Megatron-Bridge and NeMo: the same facts under ``model`` and ``data``; null turns
    interleaving off."""

    def settings(plan: Plan, _: str, __: str) -> Settings:
        return {
            f"{model}.pipeline_model_parallel_size": plan.stages,
            f"{model}.virtual_pipeline_model_parallel_size": plan.virtual_stages if plan.virtual_stages > 1 else None,
            **({f"{model}.pipeline_model_parallel_layout": layout} if (layout := megatron_layout(plan)) else {}),
            f"{data}.micro_batch_size": plan.micro_batch_size,
            f"{data}.global_batch_size": plan.global_batch,
        }

    return settings


def megatron_recompute(prefix: str, joint: str = "-") -> dict[Recompute, Settings]:
    """Return the keys by which Megatron recomputes every layer. Its selective recomputation is another than ours, of
    attention alone."""
    return {
        Recompute.FULL: {
            f"{prefix}granularity": "full",
            f"{prefix}method": "uniform",
            f"{prefix}num{joint}layers": 1,
        }
    }
