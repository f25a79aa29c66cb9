"""Each launcher: which of its keys say what, what it cannot do, and the versions whose sources say so."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from packaging.version import InvalidVersion, Version

from autotune.errors import UsageError
from autotune.records.job.recompute import Recompute, show_modes
from autotune.records.job.split import Split, is_even, show_split, to_megatron, to_torchtitan
from autotune.report.export.plan import Plan
from autotune.report.export.script import torch_limit, torch_script
from autotune.schedule_spec import ScheduleName

Settings = dict[str, Any]
"""The launcher's own keys, dotted where they are nested."""
Form = Literal["flags", "overrides", "json", "yaml", "python", "shell"]


@dataclass(frozen=True)
class Target:
    """One launcher.

    ``schedules``: its word for each of torch's schedules that it has. ``settings(plan, word, version)``: its keys.
    ``limit(plan)``: why it cannot run the plan, or None. ``files``: suffixes of config files that hold these keys, and
    ``files_until`` the last version that reads them, where newer ones do not. ``in_code``: what its user must still
    write, in words. ``call``: what the arguments are given to, in Python. ``script``: writes a whole program instead.
    ``recompute``: its keys for what all stages recompute alike.
    """

    name: str
    title: str
    versions: str
    form: Form
    schedules: Mapping[str, str]
    settings: Callable[[Plan, str, str], Settings]
    limit: Callable[[Plan], str | None] = lambda plan: None
    files: tuple[str, ...] = ()
    files_until: str = ""
    in_code: Callable[[Plan], str] = lambda plan: ""
    call: str = ""
    script: Callable[[Plan], str] | None = None
    recompute: Mapping[Recompute, Settings] = field(default_factory=dict)
    default_version: str = ""

    def refusal(self, plan: Plan) -> str | None:
        """Return why the launcher cannot run the plan, or None."""
        if plan.padding:
            rows = plan.replica_batch
            return f"does not pad: m x micro-batch size = {rows}, for {rows - plan.padding} sequences"
        if self.word(plan) is None:
            return f"has no {plan.schedule}, only {', '.join(self.schedules)}"
        return self.limit(plan)

    def file_refusal(self, suffix: str, version: str | None) -> str | None:
        """Return why the launcher reads no config file with that suffix, or None."""
        version = version or self.default_version
        if self.files_until and is_after(version, self.files_until):
            return f"{self.title} {version} takes no config file (--target-version {self.files_until} does)"
        if suffix not in self.files:
            takes = f"a file that ends in {' or '.join(self.files)}" if self.files else "no config file"
            return f"{self.title} takes {takes}"
        return None

    def word(self, plan: Plan) -> str | None:
        """Return the launcher's own name of the plan's schedule."""
        return self.schedules.get(plan.schedule) or self.schedules.get(plan.other_schedule)

    def settings_of(self, plan: Plan, version: str | None) -> Settings:
        """Return the launcher's keys for a plan that it does not refuse."""
        settings = self.settings(plan, self.word(plan) or "", version or self.default_version)
        return settings | (self._told(plan) or {})

    def untold(self, plan: Plan) -> str:
        """Return what the user must say himself of the plan's recomputation; empty where the keys or a script do."""
        if plan.recompute is None or self.script or self._told(plan) is not None:
            return ""
        return f"no key of {self.title} says what was measured, recompute {show_modes(plan.recompute)}: set it in code"

    def _told(self, plan: Plan) -> Settings | None:
        """The keys for what the plan recomputes; None where there are none."""
        modes = set(plan.recompute or ())
        return self.recompute.get(modes.pop()) if len(modes) == 1 else None


def even_layers(plan: Plan) -> str | None:
    """Return why not where stages have not equally many layers, for a launcher that knows no other cut."""
    cut = plan.layers_by_stage
    if cut is not None and not is_even(cut):
        return f"gives every stage as many layers; it takes no cut such as {show_split(cut)}"
    return None


def own_cut(plan: Plan) -> str | None:
    """Return why not where the cut is no even one, for a launcher that cuts the layers itself."""
    return f"cuts the layers itself; it takes no cut such as {show_split(plan.split)}" if plan.split else None


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


def deepspeed(plan: Plan, _: str, __: str) -> Settings:
    """Return JSON settings; m is the number of accumulation steps."""
    return {
        "train_batch_size": plan.global_batch,
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.micro_batches,
    }


def torchtitan(plan: Plan, schedule: str, version: str) -> Settings:
    """Return settings: up to 0.3 the size of a micro-batch and sequences, later the number of micro-batches and tokens.
    Where a rank has one stage the number of its layers stays torchtitan's own."""
    settings: Settings = {
        "parallelism.pipeline_parallel_degree": plan.stages,
        "parallelism.pipeline_parallel_schedule": schedule,
    }
    if plan.split:
        settings["parallelism.module_fqns_per_model_part"] = to_torchtitan(plan.split, "output")
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


def is_after(version: str, release: str) -> bool:
    """Return whether a launcher's version is later than a release such as 0.3; raise UsageError for what is no
    version."""
    if version == "main":
        return True
    try:
        return Version(version).release[:2] > Version(release).release
    except InvalidVersion:
        raise UsageError(f"--target-version: give a version such as {release}, or main (given: {version!r})") from None


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


def torchtitan_text(plan: Plan) -> str:
    """Return what a user must know of the cut: flags take no lists of names, and torchtitan's own cut is another."""
    cut = plan.layers_by_stage
    if cut is None or cut == torchtitan_cut(sum(cut), len(cut)):
        return ""
    if plan.split:
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
            "accelerate",
            "accelerate",
            MID_2026,
            "flags",
            ONE_F_ONE_B,
            accelerate,
            even_layers,
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
