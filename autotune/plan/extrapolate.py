"""A profile of one host, made longer on paper: the first and the last stage once, those in the middle over and over.

::

    measured, p = 4      E+12  12a  12b  12+H              E: embedding, H: head and loss; 12 layers each
    on paper, p = 8      E+12  12a  12b  12a  12b  12a  12b  12+H

A stage of the new pipeline is a copy of one that was measured, so what those in the middle differ by is kept. Where it
holds another number of layers than its original, what grows with layers follows: times, activations, weights, the
optimizer. A stage in the middle has nothing but layers. What the first and the last take beyond as many layers as the
mean layer in the middle costs is theirs alone, and stays as it is; so does workspace, which is one layer's at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import inf
from typing import Any

from autotune.errors import InputError, UsageError
from autotune.records.profile import Profile, StageProfile
from autotune.records.stage_costs import StageMemory, StageTime
from autotune.workload.partition import layers_per_stage

Grown = Callable[[float, Callable[[StageProfile], float]], float]
"""A cost of a stage, and how to find the same of others -> what it is with another number of layers."""


def extrapolate(profile: Profile, ranks: int, virtual_stages: int, layers: int | None = None) -> Profile:
    """Return the profile on ``ranks`` ranks of ``virtual_stages`` stages each, ``layers`` in all (None: as many on each
    rank as measured). On as many ranks, with as many layers, it is the profile itself.

    Its links are gone where ranks or stages changed. Raises InputError where the profile does not tell layers from
    embedding and head, UsageError where there are fewer layers than stages.
    """
    check(profile)
    templates = [
        template(stage, ranks * virtual_stages, len(profile.stages)) for stage in range(ranks * virtual_stages)
    ]
    alike = virtual_stages == profile.virtual_stages
    counts = layer_counts(profile, templates, ranks, layers, alike)
    made = cache(lambda source, count: resized(profile, source, count))
    facts: dict[str, Any] = {"layers": sum(counts), "stages": ranks}
    known = {name: value for name, value in facts.items() if getattr(profile.workload, name) is not None}
    return profile.model_copy(
        update={
            "stages": tuple(map(made, templates, counts)),
            "virtual_stages": virtual_stages,
            "links": profile.links if alike and ranks == profile.ranks else (),
            "outside_bytes": profile.outside_bytes if ranks == profile.ranks else most_outside(profile),
            "workload": replace(profile.workload, **known),
        }
    )


def most_outside(profile: Profile) -> int:
    """Return bytes held outside of torch on the fullest measured device: devices that are not here are taken to be like
    it."""
    return max(map(profile.outside_of, range(profile.ranks)))


def check(profile: Profile) -> None:
    """Raise InputError for a profile that cannot be extrapolated."""
    if len(profile.stages) < 3:
        raise InputError(
            f"profile: what is repeated is a stage that neither embeds nor computes the loss, so there must be 3 stages"
            f" or more (given: {len(profile.stages)}); profile more of them"
        )
    for index, stage in enumerate(profile.stages):
        in_middle = 0 < index < len(profile.stages) - 1
        if stage.layers is None or (in_middle and not stage.layers):
            raise InputError(
                f"profile: stages.{index}.layers: say how many layers each stage holds, in the middle 1 or more"
                f" (given: {stage.layers})"
            )


def template(stage: int, stages: int, measured: int) -> int:
    """Return which of the ``measured`` stages a stage of the new pipeline is a copy of."""
    if stage in (0, stages - 1):
        return 0 if stage == 0 else measured - 1
    return 1 + (stage - 1) % (measured - 2)


def layer_counts(
    profile: Profile, templates: Sequence[int], ranks: int, layers: int | None, alike: bool
) -> tuple[int, ...]:
    """Return layers of each stage. ``alike``: there are as many stages on a rank as measured, so each has what its
    template has where ``layers`` are not given."""
    own = [stage.layers or 0 for stage in profile.stages]
    if layers is None and alike:
        return tuple(own[source] for source in templates)
    total = round(sum(own) * ranks / profile.ranks) if layers is None else layers
    if total < len(templates):
        raise UsageError(
            f"--layers: {len(templates)} stages on {ranks} ranks need at least one layer each (given: {total});"
            " raise --layers, or lower --stages or --virtual-stages"
        )
    return layers_per_stage(total, len(templates))


def resized(profile: Profile, source: int, layers: int) -> StageProfile:
    """Return a measured stage with ``layers`` layers."""
    stage = profile.stages[source]
    before = stage.layers or 0
    if layers == before:
        return stage
    in_middle = 0 < source < len(profile.stages) - 1

    def grown(value: float, part: Callable[[StageProfile], float]) -> float:
        rate = value / before if before else inf
        return value + (layers - before) * (rate if in_middle else min(rate, mean_layer(profile, part)))

    # It does not grow where the optimizer goes parameter by parameter, it does where that takes all of them at once.
    transient = grown(stage.optimizer_transient_bytes, lambda one: one.optimizer_transient_bytes)
    known = stage.memory if all(one.memory for one in profile.stages) else ()
    return stage.model_copy(
        update={
            "layers": layers,
            "static_bytes": round(grown(stage.static_bytes, lambda one: one.static_bytes)),
            "time_s": tuple(grown_time(row, grown) for row in stage.time_s),
            "memory": tuple(grown_memory(row, grown) for row in known),
            "optimizer_s": grown(stage.optimizer_s, lambda one: one.optimizer_s),
            "optimizer_transient_bytes": max(stage.optimizer_transient_bytes, round(transient)),
        }
    )


def mean_layer(profile: Profile, part: Callable[[StageProfile], float]) -> float:
    """Return what a layer costs in the middle. No line is fitted through stages of unlike depth: those of one model
    differ by one layer, and by less than their noise."""
    middle = profile.stages[1:-1]
    return sum(map(part, middle)) / sum(stage.layers or 0 for stage in middle)


def grown_time(row: StageTime, grown: Grown) -> StageTime:
    """Return the row's times and their samples; what it does not know stays unknown."""
    size = row.micro_batch_size
    found: dict[str, Any] = {}
    parts: dict[str, tuple[float | None, Callable[[StageTime], float]]] = {
        "f": (row.t_f, lambda one: one.t_f),
        "bw": (row.t_bw, lambda one: one.backward),
        "b": (row.t_b, lambda one: one.input_gradient),
        "w": (row.t_w, lambda one: one.weight_gradient),
    }
    for name, (value, part) in parts.items():
        if value is None:
            continue
        now = grown(value, lambda stage, part=part: stage.seconds(size, part))  # type: ignore[misc]
        samples = getattr(row, f"samples_{name}")
        found |= {f"t_{name}": now, f"samples_{name}": tuple(one * now / value for one in samples if value)}
    return replace(row, **found)


def grown_memory(row: StageMemory, grown: Grown) -> StageMemory:
    """Return the row's bytes that every layer holds; workspace stays as it is."""
    size = row.micro_batch_size

    def held(stage: StageProfile) -> float:
        return stage.bytes(size, lambda one: one.activation_bytes)

    def between(stage: StageProfile) -> float:
        return stage.bytes(size, split_held)

    found = {"activation_bytes": round(grown(row.activation_bytes, held))}
    if row.split_held_bytes is not None:
        found["split_held_bytes"] = round(grown(row.split_held_bytes, between))
    return replace(row, **found)


def split_held(row: StageMemory) -> int:
    """Return what a split backward holds between its halves; all of it where that is not known."""
    return row.activation_bytes if row.split_held_bytes is None else row.split_held_bytes
