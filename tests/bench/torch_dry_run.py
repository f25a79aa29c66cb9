"""Torch's own dry run of a schedule, from its constructor to ``_simulate_comms_compute``, without processes."""

from torch.distributed.pipelining import schedules as torch_schedules

from autotune.predict.schedules import Action
from tests.predict.torch_orders import MULTI, SINGLE, computed, stand_in

NOT_SIMULATED = (torch_schedules.UNSHARD, torch_schedules.RESHARD, torch_schedules.REDUCE_GRAD)
"""The dry run refuses these."""


def dry_run(name: str, ranks: int, micro_batches: int) -> list[list[Action]]:
    """What every rank computes, in the order that torch's dry run finds; two stages per rank where it has several."""
    if name in SINGLE:
        stages = ranks
        order = single_stage_order(name, ranks, micro_batches)
    else:
        stages = 2 * ranks
        local = [stand_in(stage, stages, ranks) for stage in range(0, stages, ranks)]
        order = simulated_only(MULTI[name](local, micro_batches).pipeline_order_with_comms)
    found = torch_schedules._simulate_comms_compute(order, lambda stage: stage % ranks, stages)
    return [computed([a for a in found[rank] if a is not None and a.is_compute_op]) for rank in range(ranks)]


def single_stage_order(name: str, ranks: int, micro_batches: int) -> dict:
    """The written order with sends and receives; the forwards of 1F1B's last rank, written from 1, count from 0."""
    order = simulated_only(SINGLE[name](stand_in(0, ranks, ranks), micro_batches).pipeline_order)
    if name == "1F1B":
        order[ranks - 1] = [
            a._replace(microbatch_index=a.microbatch_index - (a.computation_type == torch_schedules.F))
            for a in order[ranks - 1]
        ]
    return torch_schedules._add_send_recv(order, lambda stage: stage % ranks, ranks)


def simulated_only(order: dict) -> dict:
    """Without pauses and what the dry run refuses."""
    return {
        rank: [a for a in row if a is not None and a.computation_type not in NOT_SIMULATED]
        for rank, row in order.items()
    }
