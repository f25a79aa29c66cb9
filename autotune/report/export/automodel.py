"""NeMo Automodel: torch's schedules, the size of a micro-batch, and a cut of its own."""

from autotune.records.job.split import Split, show_split, to_torchtitan
from autotune.report.export.plan import Plan
from autotune.report.export.target import Settings

SCHEDULES: dict[str, str] = {
    "1F1B": "1f1b",
    "GPipe": "gpipe",
    "LoopedBFS": "loopedbfs",
    "Interleaved1F1B": "interleaved1f1b",
    "InterleavedZeroBubble": "interleavedzerobubble",
    "ZBVZeroBubble": "zbvzerobubble",
}
"""It places DualPipeV's stages as a loop, not as a V (pipelining/functional.py, style), so that one is left out."""


def automodel(plan: Plan, schedule: str, _: str) -> Settings:
    """Return YAML settings; the cut is said where Automodel's own is another."""
    cut, own = plan.layers_by_stage, automodel_cut(plan)
    several = plan.virtual_stages > 1
    return {
        "step_scheduler.global_batch_size": plan.global_batch,
        "step_scheduler.local_batch_size": plan.replica_batch,
        "distributed.pp_size": plan.stages,
        "distributed.pipeline.pp_schedule": schedule,
        "distributed.pipeline.pp_microbatch_size": plan.micro_batch_size,
        "distributed.pipeline.layers_per_stage": layers_each(plan) if several and cut == own else None,
        "distributed.pipeline.module_fqns_per_model_part": to_hugging_face(cut) if cut and cut != own else None,
    }


def automodel_cut(plan: Plan) -> Split | None:
    """Return Automodel's own cut, which gives the first stages what is left over (pipelining/functional.py,
    generate_hf_model_fqn_per_model_part); None where the layers are not known, or no number of layers makes as many
    stages."""
    layers, stages = plan.workload.layers, plan.stages * plan.virtual_stages
    if layers is None or (plan.virtual_stages > 1 and not layers_each(plan)):
        return None
    each, more = divmod(layers, stages)
    return tuple(each + (stage < more) for stage in range(stages))


def layers_each(plan: Plan) -> int:
    """Return the layers of a stage from which Automodel arrives at our number of stages, rounding that up; 0 where no
    number does."""
    layers, stages = plan.workload.layers or 0, plan.stages * plan.virtual_stages
    each = -(-layers // stages)
    return each if each and -(-layers // each) == stages else 0


def to_hugging_face(split: Split) -> list[list[str]]:
    """Return the module names of each stage as the decoders of Hugging Face call them."""
    parts = to_torchtitan(split, "lm_head")
    names = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head"}
    return [["model.rotary_emb", *(names.get(name, f"model.{name}") for name in part)] for part in parts]


def automodel_limit(plan: Plan) -> str | None:
    """Return why not where a rank has several stages of layers whose number is not known."""
    if plan.virtual_stages > 1 and plan.layers_by_stage is None:
        return "is told the layers of a stage, and the report does not know how many layers there are"
    return None


def automodel_text(plan: Plan) -> str:
    """Return what a user must know of a cut that is not Automodel's own."""
    cut = plan.layers_by_stage
    if cut is None or cut == automodel_cut(plan):
        return ""
    return (
        f"module_fqns_per_model_part says the cut {show_split(cut)} in the names of Hugging Face's decoders;"
        " another model's are its own"
    )
