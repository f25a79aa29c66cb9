"""torchtitan: three generations of keys, and a cut of its own."""

import json

from autotune.records.job.split import Split, is_even, show_split, to_torchtitan
from autotune.report.export.plan import Plan
from autotune.report.export.target import Settings, is_after


def torchtitan(plan: Plan, schedule: str, version: str) -> Settings:
    """Return settings: up to 0.3 the size of a micro-batch and sequences, later the number of micro-batches and tokens.
    Where a rank has one stage the number of its layers stays torchtitan's own."""
    settings: Settings = {
        "parallelism.pipeline_parallel_degree": plan.stages,
        "parallelism.pipeline_parallel_schedule": schedule,
    }
    if cut := told_cut(plan):
        settings["parallelism.module_fqns_per_model_part"] = to_torchtitan(cut, "output")
    else:
        each = torchtitan_layers(plan) if plan.virtual_stages > 1 else None
        settings["parallelism.pipeline_parallel_layers_per_stage"] = each
    if not is_after(version, "0.3"):
        return settings | {
            "parallelism.pipeline_parallel_microbatch_size": plan.micro_batch_size,
            "training.local_batch_size": plan.replica_batch,
            "training.global_batch_size": plan.global_batch,
        }
    settings["parallelism.num_pp_microbatches"] = plan.micro_batches
    if plan.workload.seq_len is not None:
        settings["training.num_tokens_per_microbatch_per_dp_rank"] = plan.micro_batch_size * plan.workload.seq_len
        settings["training.num_tokens_per_train_step"] = plan.global_batch * plan.workload.seq_len
    return settings


def torchtitan_layers(plan: Plan) -> int:
    """Return layers per stage from which torchtitan arrives at our stages: it counts the embedding and the head as a
    layer each, and rounds the number of stages up. 0 where no number of layers does."""
    layers, stages = (plan.workload.layers or 0) + 2, plan.stages * plan.virtual_stages
    each = -(-layers // stages)
    return each if -(-layers // each) == stages else 0


def torchtitan_cut(layers: int, stages: int) -> Split:
    """Return torchtitan's own cut, which counts the embedding and the head as a layer each, and gives the first stages
    what is left over (torchtitan/distributed/pipeline_parallel.py, _generate_llm_fqn_per_model_part)."""
    each, more = divmod(layers + 2, stages)
    ends = [int(stage == 0) + int(stage == stages - 1) for stage in range(stages)]
    return tuple(each + (stage < more) - ends[stage] for stage in range(stages))


def told_cut(plan: Plan) -> Split | None:
    """Return the cut that torchtitan must be told, stage by stage: one that was asked for, and one of layers that do
    not divide, where torchtitan's own is another. With several stages to a rank it is told the layers of one."""
    cut = plan.layers_by_stage
    if plan.split or cut is None or plan.virtual_stages > 1 or is_even(cut):
        return plan.split
    return cut if cut != torchtitan_cut(sum(cut), len(cut)) else None


def torchtitan_text(plan: Plan) -> str:
    """Return what a user must know of the cut: flags take no lists of names, and torchtitan's own cut is another."""
    cut = plan.layers_by_stage
    if cut is None or cut == torchtitan_cut(sum(cut), len(cut)):
        return ""
    if told_cut(plan):
        return (
            f"no flag says the cut {show_split(cut)}: set parallelism.module_fqns_per_model_part in a config function"
            f" or in TOML, to {json.dumps(to_torchtitan(cut, 'output'))} (output is lm_head in newer models)"
        )
    own = show_split(torchtitan_cut(sum(cut), len(cut)))
    return f"torchtitan cuts the layers {own}, measured was {show_split(cut)}: --split {own} measures torchtitan's"


def torchtitan_limit(plan: Plan) -> str | None:
    """Return why not where a rank has several stages, whose number follows from the layers of one."""
    if plan.virtual_stages == 1 or plan.split:
        return None
    if plan.workload.layers is None:
        return "is told the layers of a stage, and the report does not know how many layers there are"
    if not torchtitan_layers(plan):
        return f"cannot cut {plan.workload.layers} layers into {plan.stages * plan.virtual_stages} stages"
    return None
