"""The timer of a user's own stages: what it times, what it keeps, and what it refuses."""

import json
import subprocess
import sys
import time
from statistics import median

import pytest
import torch

import autotune
from autotune.errors import UsageError

WITHOUT_TORCH = """
import json, sys, time
import autotune

begun = time.perf_counter()
with autotune.StageTimer(batch=8) as timer:
    for size in (2, 1):
        for stage in (0, 1):
            for _ in range(4):
                with timer.forward(stage, size):
                    time.sleep(0.01 * size)
                with timer.backward(stage, size):
                    time.sleep(0.02 * size)
wall_s = time.perf_counter() - begun
report = autotune.predict(timer.profile)
assert "torch" not in sys.modules
rows = [(row.micro_batch_size, row.t_f, row.t_bw) for row in timer.profile.stages[1].time_s]
samples = [one for stage in timer.profile.stages for row in stage.time_s for one in (*row.samples_f, *row.samples_bw)]
print(json.dumps({"rows": rows, "batch": report.workload.batch, "samples_s": sum(samples), "wall_s": wall_s}))
"""


def test_sleeping_stages_are_timed_without_torch(tmp_path):
    (tmp_path / "user.py").write_text(WITHOUT_TORCH)
    done = subprocess.run([sys.executable, "user.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["batch"] == 8
    assert [size for size, _, _ in found["rows"]] == [1, 2]
    for size, forward, backward in found["rows"]:  # a sleep is never shorter than asked for
        assert forward >= 0.01 * size
        assert backward >= 0.02 * size
    assert found["samples_s"] < found["wall_s"]


@pytest.fixture(scope="module")
def timed():
    """Two stages of torch, timed forward, backward and in the optimizer."""
    stages = [torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(depth))) for depth in (1, 8)]
    optimizers = [torch.optim.SGD(stage.parameters(), lr=0.1) for stage in stages]
    with autotune.StageTimer(batch=64, seq_len=1, layers=(1, 8)) as timer:
        for size in (8, 64):
            for number, stage in enumerate(stages):
                for _ in range(9):
                    with timer.forward(number, size):
                        output = stage(torch.ones(size, 64))
                    with timer.backward(number, size):
                        output.sum().backward()
        for number, optimizer in enumerate(optimizers):
            for _ in range(3):
                with timer.optimizer(number):
                    optimizer.step()
    return timer.profile


def test_stages_of_torch_become_a_profile(timed):
    assert [stage.layers for stage in timed.stages] == [1, 8]
    assert (timed.workload.batch, timed.workload.seq_len, timed.workload.stages) == (64, 1, 2)
    assert (timed.environment.device, timed.environment.torch_version) == ("cpu", torch.__version__)
    for stage in timed.stages:
        assert [row.micro_batch_size for row in stage.time_s] == [8, 64]
        assert stage.optimizer_s > 0
        for row in stage.time_s:
            assert len(row.samples_f) == len(row.samples_bw) == 8  # of 9, the first is priming
            assert (row.t_f, row.t_bw) == (median(row.samples_f), median(row.samples_bw))


def test_the_profile_is_one_like_any_other(timed, tmp_path):
    timed.save(tmp_path / "profile.json")
    assert autotune.load_profile(tmp_path / "profile.json") == timed
    report = autotune.predict(timed, micro_batches=[1, 2, 8])
    assert len(report.candidates) == 3
    assert report.rows()[0]["throughput_tokens_s"] > 0


def test_halves_of_a_backward_are_kept_apart():
    with autotune.StageTimer(priming=0) as timer:
        for part in (timer.forward, timer.input_gradient, timer.weight_gradient):
            with part(0, 4):
                time.sleep(0.001)
    (row,) = timer.profile.stages[0].time_s
    assert row.t_bw is None
    assert (row.samples_b, row.samples_w) == ((row.t_b,), (row.t_w,))
    assert min(row.t_b, row.t_w) >= 0.001


def test_what_computes_behind_the_cpu_is_waited_for_before_and_after():
    waits = []

    def wait():
        begun = time.perf_counter()
        time.sleep(0.01)
        waits.append((begun, time.perf_counter()))

    with autotune.StageTimer(priming=0, synchronize=wait) as timer:
        with timer.forward(0, 1):
            assert len(waits) == 1
        ended = time.perf_counter()
        with timer.backward(0, 1):
            pass
    (row,) = timer.profile.stages[0].time_s
    before, after, *_ = waits
    assert len(waits) == 4
    assert after[1] - after[0] <= row.t_f <= ended - before[1]  # the wait after it, and not that before


def passes(timer, stage, size, count=2):
    for _ in range(count):
        with timer.forward(stage, size):
            pass
        with timer.backward(stage, size):
            pass


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda timer: None, "time every stage, from 0 on without a gap (timed: none)"),
        (lambda timer: passes(timer, 1, 4), "without a gap (timed: 1)"),
        (
            lambda timer: [passes(timer, 0, 4, count=1), passes(timer, 1, 4)],
            "stage 0 needs a forward and a backward of 4 sequences that count",
        ),
        (lambda timer: timer.forward(-1, 4).__enter__(), "(given: stage -1, size 4)"),
        (lambda timer: timer.forward(0, 0).__enter__(), "(given: stage 0, size 0)"),
        (lambda timer: [passes(timer, 0, 4), passes(timer, 1, 4), passes(timer, 2, 4)], "layers has 2 numbers, and 3"),
    ],
)
def test_what_cannot_be_a_profile_is_refused(use, words):
    with pytest.raises(UsageError) as raised, autotune.StageTimer(layers=(1, 2)) as timer:
        use(timer)
    assert words in str(raised.value)


def test_a_pass_inside_of_another_is_refused():
    timer = autotune.StageTimer()
    with pytest.raises(UsageError, match="backward of stage 0 begins while a forward is timed"), timer.forward(0, 1):
        timer.backward(0, 1).__enter__()


def test_a_pass_that_raises_is_not_kept_and_its_error_goes_on():
    timer = autotune.StageTimer(priming=0)
    with pytest.raises(ZeroDivisionError), timer, timer.forward(0, 1):
        raise ZeroDivisionError
    with pytest.raises(UsageError, match="when the with block ends"):
        timer.profile  # noqa: B018
    with timer:
        passes(timer, 0, 1, count=3)
    assert len(timer.profile.stages[0].time_s[0].samples_f) == 3
