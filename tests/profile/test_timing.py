"""What is asked of the ranks while profiling, of ranks that only take down the commands."""

import json

import pytest

from autotune.pipeline.control.commands import Prepare, Primed, RecordedAction, ReplayStage, Step, StepTimes, TimeStages
from autotune.profile.measure import WAIT_S, Measurer, waiting
from autotune.records.job.placement import Placement
from autotune.records.job.workload import WorkloadConfig
from autotune.records.plain import encode
from autotune.records.profile import Calibration
from autotune.records.stage_costs import StageTime

SIZES = (1, 2, 4, 8, 16)


def workload(stages):
    return WorkloadConfig(
        layers=8, stages=stages, hidden=16, heads=2, seq_len=8, vocab=32, batch=16, precision="fp32", optimizer="none"
    )


class ScriptedRanks:
    """Answers at once; ``asked`` is what it was asked. Stage s takes s + 1 seconds each way."""

    hosts = ()

    def __init__(self, placed, device):
        self.placed, self.asked, self.everyone = placed, [], range(max(placed) + 1)
        self.device = device

    def ask(self, command, timeout_s, idle_s):
        self.asked.append(command)
        return getattr(self, command.kind)(command)

    def time_stages(self, command):
        def rows(stage):
            row = json.loads(encode(StageTime(micro_batch_size=1, t_f=stage + 1, t_bw=stage + 1)))
            return [row | {"micro_batch_size": size} for size in command.micro_batch_sizes]

        return [[rows(stage) for stage in command.stages if self.placed[stage] == rank] for rank in self.everyone]

    def prepare(self, command):
        self.prepared = command
        return [json.loads(encode(Primed(peak_memory_bytes=1000))) for _ in self.everyone]

    def step(self, command):
        """Two actions that take 6 ms each on every rank, a millisecond between them."""
        spans = ((0.0, 0.006), (0.007, 0.013))
        actions = tuple(
            RecordedAction(name="forward", stage=0, micro_batch=i, start_s=start, end_s=end)
            for i, (start, end) in enumerate(spans)
        )
        step = StepTimes(start_s=0.0, end_s=0.02, actions=actions)
        return [json.loads(encode(step)) for _ in self.everyone]


def measurer(p, v=1, device="cpu", **more):
    placement = Placement(virtual_stages=v)
    ranks = ScriptedRanks([stage % p for stage in range(p * v)], device)
    return Measurer(ranks, workload(p), placement, SIZES, False, print, output_bytes=8 * 16 * 4, **more), ranks


@pytest.mark.parametrize("v", [1, 2])
def test_ranks_with_a_device_each_are_timed_all_at_once(v):
    made, ranks = measurer(4, v)
    times = made.stage_times(SIZES, (3,) * 5)
    assert [command.stages for command in ranks.asked] == [(0, 1, 2, 3), (4, 5, 6, 7)][:v]
    assert [rows[0].t_f for rows in times] == [stage + 1 for stage in range(4 * v)]


def test_ranks_that_share_cores_are_timed_one_stage_after_the_other():
    made, ranks = measurer(2, 2, is_shared=True)
    times = made.stage_times(SIZES, (3,) * 5)
    assert [command.stages for command in ranks.asked] == [(0,), (1,), (2,), (3,)]
    assert [rows[0].t_f for rows in times] == [1, 2, 3, 4]


@pytest.mark.parametrize("is_shared", [True, False])
def test_every_size_is_timed_three_times_at_least_in_all_rounds(is_shared):
    made, ranks = measurer(1, is_shared=is_shared)
    for number in range(3):
        made.round(number)
    counts = dict.fromkeys(SIZES, 0)
    timed = [command for command in ranks.asked if isinstance(command, TimeStages)]
    for command in timed:
        for size, fewest in zip(command.micro_batch_sizes, command.fewest, strict=True):
            counts[size] += fewest
    assert all(count >= 3 for count in counts.values())
    if is_shared:  # the largest, in the first round alone
        assert [command.micro_batch_sizes[-1] for command in timed] == [16, 4, 8]
        assert counts[16] == 3


@pytest.mark.parametrize(("device", "waited"), [("cuda", 0.006), ("cpu", WAIT_S)])
def test_a_gpu_waits_as_long_as_recorded_and_the_cpu_as_long_as_asked(device, waited):
    """A GPU counts the cycles of a clock that drifts; the CPU sleeps, and the rest of an action is the runtime's."""
    made, _ = measurer(2, device=device)
    assert made.calibration(1, 4, waiting(64)).wait_s == pytest.approx(waited)
    assert made.calibration(1, 4, None).wait_s is None


def test_of_several_rounds_the_middle_wait_counts():
    runs = [
        Calibration(schedule="1F1B", micro_batches=4, micro_batch_size=1, wait_s=wait_s, step_times_s=(1.0,))
        for wait_s in (0.005, 0.009, 0.006)
    ]
    assert Calibration.merged(runs).wait_s == 0.006
    computing = [run.model_copy(update={"wait_s": None}) for run in runs]
    assert Calibration.merged(computing).wait_s is None


@pytest.mark.parametrize("v", [1, 2])
def test_the_cpu_beside_gpus_takes_what_a_step_of_stages_that_do_nothing_takes(v):
    """A step of 20 ms: of 16 micro-batches on two ranks each has 32 actions, or 64 of two stages."""
    made, ranks = measurer(2, v, device="cuda")
    assert made.host_action() == pytest.approx(0.02 / (32 * v))
    plan, *steps = ranks.asked
    assert isinstance(plan, Prepare)
    assert (plan.micro_batches, plan.replay) == (16, (ReplayStage(),) * 2 * v)
    assert set(steps) == {Step()}  # unrecorded


def test_where_the_cpu_is_the_device_nothing_is_asked():
    made, ranks = measurer(2)
    assert (made.host_action(), ranks.asked) == (0.0, [])
