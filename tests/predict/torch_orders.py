"""What torch's schedule classes would run, asked of the classes themselves with stand-ins for the stages."""

from types import SimpleNamespace
from typing import Any

from torch.distributed.pipelining import schedules as torch_schedules

from autotune.predict.schedules import Action

SINGLE = {"GPipe": torch_schedules.ScheduleGPipe, "1F1B": torch_schedules.Schedule1F1B}
MULTI = {
    "LoopedBFS": torch_schedules.ScheduleLoopedBFS,
    "Interleaved1F1B": torch_schedules.ScheduleInterleaved1F1B,
    "InterleavedZeroBubble": torch_schedules.ScheduleInterleavedZeroBubble,
    "ZBVZeroBubble": torch_schedules.ScheduleZBVZeroBubble,
    "DualPipeV": torch_schedules.ScheduleDualPipeV,
}


def drawn_by_torch(name: str, ranks: int, micro_batches: int) -> list[list[Action]]:
    """The order that torch's single-stage class writes down for every rank."""
    sizes = SimpleNamespace(_num_stages=ranks, _n_microbatches=micro_batches)
    order = SINGLE[name]._get_pipeline_order(sizes)
    return [computed(order[rank]) for rank in range(ranks)]


def computed(order: list[Any]) -> list[Action]:
    """Only what is computed: without pauses and gradient reduction, an overlapped pair as its two parts."""
    found = []
    for action in order:
        if action is not None and action.computation_type.value != "REDUCE_GRAD":
            for part in action.sub_actions or (action,):
                found.append(Action(part.computation_type.value, part.stage_index, part.microbatch_index))
    return found


class RecordingStage:
    """A stage without neighbours or messages that notes what it is asked to compute."""

    is_first = is_last = True

    def __init__(self, stage_index: int) -> None:
        self.stage_index = stage_index
        self.done: list[Action] = []

    def forward_one_chunk(self, micro_batch: int, *_: Any, **__: Any) -> None:
        self.done.append(Action("F", self.stage_index, micro_batch))

    def backward_one_chunk(self, micro_batch: int, **_: Any) -> None:
        self.done.append(Action("B", self.stage_index, micro_batch))

    def no_messages(self, _: int) -> list[Any]:
        return []

    get_fwd_recv_ops = get_fwd_send_ops = get_bwd_recv_ops = get_bwd_send_ops = no_messages

    def perform_reduce_grad(self, _: int) -> None:
        pass


def executed_by_torch(name: str, ranks: int, micro_batches: int) -> list[list[Action]]:
    """The order in which torch's single-stage class really computes on every rank."""
    found = []
    for rank in range(ranks):
        stage = RecordingStage(rank)
        nothing = [()] * micro_batches
        schedule = SimpleNamespace(
            _stage=stage,
            _num_stages=ranks,
            _n_microbatches=micro_batches,
            _has_backward=True,
            scale_grads=False,
            _check_inputs=lambda *_, nothing=nothing: (nothing, nothing),
            _initialize_stage=lambda *_: None,
            _maybe_compute_loss=lambda *_: None,
            _maybe_get_loss=lambda *_: None,
            _update_losses=lambda *_: None,
        )
        SINGLE[name]._step_microbatches(schedule)
        found.append(stage.done)
    return found


def stand_in(index: int, stages: int, ranks: int) -> SimpleNamespace:
    """As much of a stage as a schedule's constructor asks for."""
    sizes = {"num_stages": stages, "group_size": ranks, "group_rank": 0}
    return SimpleNamespace(stage_index=index, is_first=index == 0, is_last=False, submod=None, **sizes)


def constructed_by_torch(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> list[list[Action]]:
    """The order of every rank that torch's constructor makes; raises its ValueError for sizes that it refuses.

    The constructor also pairs every send with its receive, so an order that it accepts can run.
    """
    stages = ranks * virtual_stages
    if name in SINGLE:
        schedule = SINGLE[name](stand_in(0, stages, ranks), micro_batches)
    else:
        local = [stand_in(index, stages, ranks) for index in range(0, stages, ranks)]
        schedule = MULTI[name](local, micro_batches)
    return [computed(schedule.pipeline_order[rank]) for rank in range(ranks)]
