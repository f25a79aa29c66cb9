"""Layers by themselves, on one rank: by them the cost of another cut is told."""

import torch
from torch import nn

from autotune.pipeline.control.commands import MeasureLayers, TimeStages
from autotune.pipeline.device.device import Device
from autotune.pipeline.rank.probe import StageProbe
from autotune.records.stage_costs import LayerProfile
from autotune.workload.optimizer import hold_gradients, static_bytes
from autotune.workload.protocol import Workload
from autotune.workload.recompute import recompute

SAMPLES = 6  # of each size at least: what is small is disturbed more


def measure_layers(workload: Workload, command: MeasureLayers, device: Device) -> list[LayerProfile]:
    """Return what a layer of each kind costs, in the order of their first layers."""
    return [measure_layer(workload, layers, command, device) for layers in kinds(workload)]


def kinds(workload: Workload) -> list[tuple[int, ...]]:
    """Return the layers of the model, those together that are alike."""
    found: dict[object, list[int]] = {}
    count = workload.facts.layers or 0
    for layer in range(count):
        stage = workload.build_stage(range(layer, layer + 1), torch.device("meta"))
        shapes = tuple(tuple(weight.shape) for weight in stage.parameters())
        own = workload.layers_in(stage)
        parts = tuple((type(part).__name__, ways(part)) for one in own for part in one.modules())
        found.setdefault((layer == 0, layer == count - 1, shapes, parts), []).append(layer)
    return [tuple(layers) for layers in found.values()]


def ways(part: nn.Module) -> tuple[tuple[str, bool | str], ...]:
    """Return what a module says of how it works: of two attentions with the same weights one may slide."""
    return tuple((name, value) for name, value in sorted(vars(part).items()) if isinstance(value, bool | str))


def measure_layer(workload: Workload, layers: tuple[int, ...], command: MeasureLayers, device: Device) -> LayerProfile:
    """Return what the first of ``layers``, which are alike, costs as a stage of its own."""
    own = range(layers[0], layers[0] + 1)
    stage = workload.build_stage(own, device.torch_device)
    recompute(workload.layers_in(stage), command.mode)
    hold_gradients(stage)
    probe, sizes = StageProbe(stage, workload, own, device), command.micro_batch_sizes
    memory = probe.memory(sizes, command.split)
    plan = TimeStages(stages=(0,), micro_batch_sizes=sizes, fewest=(SAMPLES,) * len(sizes), split=command.split)
    return LayerProfile(
        layers=layers,
        static_bytes=static_bytes(stage, workload.facts.optimizer or "none"),
        parameters=sum(weight.numel() for weight in stage.parameters()),
        time_s=tuple(probe.times(plan)),
        memory=tuple(memory),
    )
