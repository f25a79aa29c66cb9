"""What is wrong with an exported file: judged by the launchers' own sources, and by other parsers than wrote it."""

import difflib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

M, B, P = 8, 8, 4
SPLIT = "Et*13|t*13|t*12|t*10L"
MEGATRON_CUTS = {
    "pipeline_model_parallel_layout",
    "num_layers_in_first_pipeline_stage",
    "num_layers_in_last_pipeline_stage",
    "num_layers_per_virtual_pipeline_stage",
    "account_for_embedding_in_pipeline_split",
    "account_for_loss_in_pipeline_split",
    "microbatch_group_size_per_vp_stage",
}


class Change(NamedTuple):
    """A file before and after, and what its user was told."""

    suffix: str
    old: str
    new: str
    notes: tuple[str, ...]


class Rule(NamedTuple):
    """What a launcher's file must say: ``sizes`` whose values are m, b, p or follow from them; ``others`` are further
    keys that may be set, and ``removed`` keys that may go, where a note names them."""

    sizes: dict[str, str]
    others: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


def keys(prefix: str, names: set[str]) -> frozenset[str]:
    """Dotted keys of one table."""
    return frozenset(f"{prefix}.{name}" for name in names)


def megatron(model: str, data: str) -> Rule:
    """The rule of the two that have Megatron's keys."""
    sizes = {
        f"{model}.pipeline_model_parallel_size": "p",
        f"{data}.micro_batch_size": "b",
        f"{data}.global_batch_size": "b*m*dp",
        f"{model}.virtual_pipeline_model_parallel_size": "v",
    }
    layout = f"{model}.pipeline_model_parallel_layout"
    return Rule(sizes, frozenset({layout}), keys(model, MEGATRON_CUTS))


RULES = {
    "megatron-bridge": megatron("model", "train"),
    "nemo": megatron("trainer.strategy", "data"),
    "automodel": Rule(
        {
            "step_scheduler.global_batch_size": "b*m*dp",
            "step_scheduler.local_batch_size": "b*m",
            "distributed.pp_size": "p",
            "distributed.pipeline.pp_microbatch_size": "b",
        },
        keys("distributed.pipeline", {"pp_schedule", "layers_per_stage", "module_fqns_per_model_part"}),
        keys("distributed.pipeline", {"pp_schedule_csv", "module_fqns_per_model_part", "pp_batch_size"}),
    ),
    "deepspeed": Rule(
        {
            "train_batch_size": "b*m*dp",
            "train_micro_batch_size_per_gpu": "b",
            "gradient_accumulation_steps": "m",
        },
        removed=frozenset({"pipeline.stages"}),
    ),
    "gpt-neox": Rule(
        {
            "pipe_parallel_size": "p",
            "train_micro_batch_size_per_gpu": "b",
            "gradient_accumulation_steps": "m",
        },
        frozenset({"train_batch_size"}),
    ),
    "accelerate": Rule(
        {"megatron_lm_config.megatron_lm_pp_degree": "p", "megatron_lm_config.megatron_lm_num_micro_batches": "m"}
    ),
    "nanotron": Rule(
        {
            "parallelism.dp": "dp",
            "parallelism.pp": "p",
            "tokens.batch_accumulation_per_replica": "m",
            "tokens.micro_batch_size": "b",
        },
        frozenset({"parallelism.pp_engine"}),
    ),
    "torchtitan": Rule(
        {
            "parallelism.pipeline_parallel_degree": "p",
            "parallelism.pipeline_parallel_microbatch_size": "b",
            "training.local_batch_size": "b*m",
            "training.global_batch_size": "b*m*dp",
        },
        keys(
            "parallelism",
            {"pipeline_parallel_schedule", "pipeline_parallel_layers_per_stage", "module_fqns_per_model_part"},
        ),
        keys(
            "parallelism",
            {
                "pipeline_parallel_split_points",
                "pipeline_parallel_schedule_csv",
                "module_fqns_per_model_part",
                "pipeline_parallel_layers_per_stage",
                "pipeline_parallel_first_stage_less_layers",
                "pipeline_parallel_last_stage_less_layers",
            },
        ),
    ),
}


class Tolerant(yaml.SafeLoader):
    """PyYAML's loader, which takes tags that it does not know as text."""


def tagged(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    """The value of a node, whatever its tag."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node, True) if isinstance(node, yaml.SequenceNode) else str(node.value)


Tolerant.add_multi_constructor("", tagged)


def parsed(suffix: str, text: str) -> dict[str, Any]:
    """The values of single keys by their dotted names, read by another parser."""
    text = text.removeprefix("\ufeff")
    if suffix == ".json":
        values = json.loads(text)
    elif suffix == ".toml":
        values = tomllib.loads(text)
    else:
        values = yaml.load(text, Tolerant)
    return dict(flat(values or {}))


def flat(values: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each key that holds no table, or an empty one."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def found_in(change: Change, to: str, plan: str) -> Iterator[tuple[str, str]]:
    """Each violation: its kind, and words."""
    rule = RULES[to]
    try:
        old, new = parsed(change.suffix, change.old), parsed(change.suffix, change.new)
    except Exception as error:
        yield "unreadable", str(error).splitlines()[0]
        return
    if to == "gpt-neox":
        old, new = ({key.replace("-", "_"): value for key, value in one.items()} for one in (old, new))
    yield from wrong_values(rule, new, change.notes, plan, to)
    yield from wrong_keys(rule, old, new, change.notes)
    yield from wrong_comments(change)
    yield from wrong_lines(rule, change)
    if breaks(change.old) and breaks(change.new) != breaks(change.old):
        yield "line breaks", f"{breaks(change.new)}, not {breaks(change.old)}"
    if change.old.strip() and change.old.endswith("\n") != change.new.endswith("\n"):
        yield "end of file", "its line break came or went"


def breaks(text: str) -> set[str]:
    """The line breaks of a text."""
    return set(re.findall(r"\r?\n", text))


def wrong_values(
    rule: Rule, new: dict[str, Any], notes: tuple[str, ...], plan: str, to: str
) -> Iterator[tuple[str, str]]:
    """Sizes that are not what the plan says, with the number of replicas that the notes state."""
    dp = next(int(found[1]) for note in notes if (found := re.search(r"x (\d+) replicas = ", note)))
    virtual = 2 if plan == "interleaved" else None
    meant = {"m": M, "b": B, "p": P, "dp": dp, "b*m": B * M, "b*m*dp": B * M * dp, "v": virtual}
    for key, what in rule.sizes.items():
        if new.get(key) != meant[what] or isinstance(new.get(key), bool):
            yield "wrong value", f"{key} is {new.get(key)!r}, not {meant[what]}"
    if "train_batch_size" in new and new["train_batch_size"] != B * M * dp:
        yield "wrong value", f"train_batch_size is {new['train_batch_size']!r}"
    layout = new.get("model.pipeline_model_parallel_layout") or new.get(
        "trainer.strategy.pipeline_model_parallel_layout"
    )
    if to in ("megatron-bridge", "nemo") and layout != (SPLIT if plan == "cut" else None):
        yield "wrong value", f"the layout is {layout!r}"
    if (parts := next((new[key] for key in new if key.endswith("module_fqns_per_model_part")), None)) is not None:
        layers = [sum(bool(re.search(r"layers\.\d+$", name)) for name in part) for part in parts]
        if plan != "cut" or layers != [13, 13, 12, 10]:
            yield "wrong value", f"the stages have {layers} layers"


def wrong_keys(
    rule: Rule, old: dict[str, Any], new: dict[str, Any], notes: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Keys that changed, came or went and are none of ours, and those that went without a word."""
    ours = set(rule.sizes) | rule.others
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new:
            if differ(old[key], new[key]) and key not in ours:
                yield "foreign key changed", key
        elif key in new and key not in ours and not (new[key] is None and key in parents(old)):
            yield "foreign key added", key
        elif key in old and key not in new and key not in parents(new):
            is_said = any(note.startswith(f"removed {key} ") for note in notes)
            if key not in rule.removed or not (is_said or key in ours):
                yield "key removed", key


def differ(one: Any, other: Any) -> bool:
    """Whether two values differ; a number that is no number is itself."""
    return repr(one) != repr(other)


def parents(values: dict[str, Any]) -> set[str]:
    """The tables that hold the keys."""
    return {key[:at] for key in values for at, sign in enumerate(key) if sign == "."}


COMMENT = re.compile(r"""(?:^|(?<=\s))#.*|"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""")


def comments(change: Change, text: str) -> Counter[str]:
    """The comments of a text, line by line; JSON has none."""
    if change.suffix == ".json":
        return Counter()
    found = (match[0] for line in text.splitlines() for match in COMMENT.finditer(line))
    return Counter(one.strip() for one in found if one.startswith("#"))


def wrong_comments(change: Change) -> Iterator[tuple[str, str]]:
    """Comments that came or went."""
    old, new = comments(change, change.old), comments(change, change.new)
    for comment in old - new:
        yield "comment lost", comment
    for comment in new - old:
        yield "comment added", comment


def wrong_lines(rule: Rule, change: Change) -> Iterator[tuple[str, str]]:
    """Lines that changed and hold none of our keys, nor a part of a value of one."""
    names = {key.rpartition(".")[2] for key in {*rule.sizes, *rule.others, *rule.removed}}
    tables = {part for key in rule.sizes for part in key.split(".")[:-1]}
    old, new = change.old.splitlines(), change.new.splitlines()
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        gone, come = old[a:b], new[c:d]
        if all(mine(line, names) for line in gone + come):
            continue
        for line in come:
            if not (mine(line, names) or is_table(line, tables) or line.strip() in comments(change, change.old)):
                if not line.strip() or is_comma(line, gone) or line.strip() in "{}},":
                    continue
                yield "foreign line", f"+{line}"
        inner = False
        for line in gone:
            inner = mine(line, names) or (inner and not re.match(r"\s*[\w\"'-]+\s*[:=]", line))
            if not (inner or is_comma(line, come) or line.strip() in comments(change, change.old)):
                yield "foreign line", f"-{line}"


def mine(line: str, names: set[str]) -> bool:
    """Whether a line holds one of our keys."""
    found = re.match(r"""[\s{,-]*["']?([\w-]+)["']?\s*[:=]""", line)
    return found is not None and found[1].replace("-", "_") in names


def is_table(line: str, tables: set[str]) -> bool:
    """Whether a line opens one of the tables that our keys are in."""
    return line.strip(" \t[]:{\"'").rpartition(".")[2] in tables


def is_comma(line: str, others: list[str]) -> bool:
    """Whether a line is one of the others but for a comma at its end, or before its comment."""
    return any(line.replace(",", "") == other.replace(",", "") for other in others)
