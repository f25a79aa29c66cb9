"""The facts of a rank's stages."""

from torch import nn

from autotune.pipeline.control.commands import StageFacts
from autotune.pipeline.rank.probe import has_batch_statistics
from autotune.pipeline.rank.trial import CAN_DROP_OUTPUTS
from autotune.workload.protocol import Workload, stage_outputs


def stage_facts(stage: nn.Module, workload: Workload, layers: range, static_bytes: int) -> StageFacts:
    """Return what the controller wants to know of the stage of ``layers``."""
    is_last = layers.stop == workload.facts.layers
    kept = workload.boundary(layers.stop, 1) if is_last and not CAN_DROP_OUTPUTS else ()
    return StageFacts(
        layers=len(layers),
        parameters=sum(parameter.numel() for parameter in stage.parameters()),
        static_bytes=static_bytes,
        output_bytes=sum(tensor.nbytes for tensor in stage_outputs(workload, layers, micro_batch_size=1)),
        kept_output_bytes=sum(tensor.nbytes for tensor in kept),
        batch_statistics=has_batch_statistics(stage),
    )
