"""A profile of one cut of the layers, as it would be of another: each stage's figures, moved by the measured layers.

::

    time of a stage     measured with its own layers   x   layers of the new cut / layers of the old, alone
    bytes of a stage    measured with its own layers   +   layers of the new cut - layers of the old, alone

So what layers cost alone only tells by how much a stage changes. The cut that was measured comes out as measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

from autotune.errors import InputError
from autotune.records.job.split import Split
from autotune.records.profile import Profile, StageProfile, interpolate
from autotune.records.stage_costs import LayerProfile, StageMemory, StageTime


def measured_split(profile: Profile) -> Split | None:
    """Return the cut that the profile was measured with; None where it does not tell."""
    counts = tuple(stage.layers or 0 for stage in profile.stages)
    return counts if all(counts) else None


def layer_rows(profile: Profile) -> list[LayerProfile]:
    """Return what each layer of the model costs, in its order."""
    of_layer = {layer: row for row in profile.layers for layer in row.layers}
    return [of_layer[layer] for layer in sorted(of_layer)]


def recut(profile: Profile, split: Split | None) -> Profile:
    """Return the profile with its layers cut as ``split``; None: as it was measured. Needs measured layers for another
    cut than that."""
    before = measured_split(profile)
    if split is None or split == before:
        return profile
    if before is None or not profile.layers:
        raise InputError(
            "the profile does not say what layers cost, from which another cut is predicted: use --balance"
        )
    rows = layer_rows(profile)
    stages = tuple(
        moved(stage, rows[old.start : old.stop], rows[new.start : new.stop])
        for stage, old, new in zip(profile.stages, ranges(before), ranges(split), strict=True)
    )
    return profile.model_copy(update={"stages": stages})


def ranges(split: Split) -> list[range]:
    """Return the layers of each stage."""
    ends = list(accumulate(split))
    return [range(end - count, end) for end, count in zip(ends, split, strict=True)]


def moved(stage: StageProfile, old: Sequence[LayerProfile], new: Sequence[LayerProfile]) -> StageProfile:
    """Return a stage that holds ``new`` layers in place of the ``old`` ones."""
    share = ratio(sum(row.parameters for row in new), sum(row.parameters for row in old))
    return stage.model_copy(
        update={
            "layers": len(new),
            "static_bytes": changed(stage.static_bytes, old, new, lambda row: row.static_bytes),
            "time_s": tuple(moved_time(row, old, new) for row in stage.time_s),
            "memory": tuple(moved_memory(row, old, new) for row in stage.memory),
            "optimizer_s": stage.optimizer_s * share,
            "optimizer_transient_bytes": round(stage.optimizer_transient_bytes * share),
            "bucket_bytes": tuple(max(1, round(size * share)) for size in stage.bucket_bytes),
        }
    )


def changed(
    value: int, old: Sequence[LayerProfile], new: Sequence[LayerProfile], part: Callable[[LayerProfile], float]
) -> int:
    """Return bytes of a stage, less those of its old layers and more those of its new ones."""
    return max(0, round(value + sum(map(part, new)) - sum(map(part, old))))


def ratio(new: float, old: float) -> float:
    """Return the quotient; 1 of nothing."""
    return new / old if old else 1.0


class Part(NamedTuple):
    """A time of a row, and the samples behind it."""

    name: str
    samples: str
    of: Callable[[StageTime], float]


PARTS = (
    Part("t_f", "samples_f", lambda row: row.t_f),
    Part("t_bw", "samples_bw", lambda row: row.backward),
    Part("t_b", "samples_b", lambda row: row.input_gradient),
    Part("t_w", "samples_w", lambda row: row.weight_gradient),
    Part("host_s", "", lambda row: row.host_s or 0.0),
)


def layer_seconds(row: LayerProfile, size: int, part: Callable[[StageTime], float]) -> float:
    """Return a time of one layer at any micro-batch size."""
    return interpolate([one.micro_batch_size for one in row.time_s], [part(one) for one in row.time_s], size)


def moved_time(row: StageTime, old: Sequence[LayerProfile], new: Sequence[LayerProfile]) -> StageTime:
    """Return the times of a stage with other layers."""
    update: dict[str, Any] = {}
    for part in PARTS:
        value = getattr(row, part.name)
        if value is None:
            continue
        seconds = [sum(layer_seconds(one, row.micro_batch_size, part.of) for one in layers) for layers in (new, old)]
        times = ratio(*seconds)
        update[part.name] = value * times
        if part.samples:
            update[part.samples] = tuple(sample * times for sample in getattr(row, part.samples))
    return replace(row, **update)


def moved_memory(row: StageMemory, old: Sequence[LayerProfile], new: Sequence[LayerProfile]) -> StageMemory:
    """Return the memory of a stage with other layers. What it holds while an action runs is as it was: that is of one
    layer at a time."""

    def part(name: str) -> Callable[[LayerProfile], float]:
        def of(layer: LayerProfile) -> float:
            sizes = [one.micro_batch_size for one in layer.memory]
            return interpolate(sizes, [float(getattr(one, name) or 0) for one in layer.memory], row.micro_batch_size)

        return of

    update = {"activation_bytes": changed(row.activation_bytes, old, new, part("activation_bytes"))}
    if row.split_held_bytes is not None:
        update["split_held_bytes"] = changed(row.split_held_bytes, old, new, part("split_held_bytes"))
    return replace(row, **update)
