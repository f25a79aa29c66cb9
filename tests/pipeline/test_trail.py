"""Where a device is that runs behind its CPU, as seen from outside; the device here is one that a test lets go on."""

import pytest

from autotune.pipeline.control.activity import Action, ActivityWriter, last_activity
from autotune.pipeline.rank.rank import shortened
from autotune.pipeline.rank.trail import POLL_S, Trail
from tests.killing import wait_until

WAIT_S = 50 * POLL_S


class SteppedDevice:
    """Comes past a mark when ``passed`` says so; ``broken``: an error of CUDA, after which nothing can be asked."""

    passed, marks, broken = 0, 0, False

    def use(self):
        pass

    def mark(self):
        self.marks += 1
        return self.marks

    def has_passed(self, mark):
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return mark <= self.passed


@pytest.fixture
def device():
    return SteppedDevice()


@pytest.fixture
def activity(tmp_path, device):
    """Has asked for two forwards and the optimizer step: five marks."""
    activity = ActivityWriter(tmp_path / "doing")
    activity.trail = Trail(device)
    for micro_batch in (0, 1):
        activity.begin("forward", 2, micro_batch)
        activity.end()
    activity.begin("optimizer")
    return activity


def test_of_a_device_that_has_come_to_nothing_yet_the_cpu_is_told(activity, tmp_path):
    assert last_activity(tmp_path / "doing") == (Action("optimizer", None, None, False), None)


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (1, "the forward of micro-batch 0 on stage 2"),
        (2, "waiting after the forward of micro-batch 0 on stage 2"),
        (3, "the forward of micro-batch 1 on stage 2"),
    ],
)
def test_the_action_is_that_of_the_device_and_the_cpu_is_ahead(activity, device, tmp_path, passed, words):
    device.passed = passed
    assert wait_until(lambda: str(last_activity(tmp_path / "doing").action) == words, WAIT_S)
    assert str(last_activity(tmp_path / "doing").ahead) == "the optimizer step"


def test_a_device_that_has_caught_up_is_where_the_cpu_is(activity, device, tmp_path):
    device.passed = 5
    assert wait_until(lambda: last_activity(tmp_path / "doing").ahead is None, WAIT_S)
    assert str(last_activity(tmp_path / "doing").action) == "the optimizer step"


def test_an_error_of_the_device_leaves_what_it_had_come_to(activity, device):
    device.passed = 3
    activity.trail.catch_up()
    device.broken = True
    assert str(activity.now(is_late=True).action) == "the forward of micro-batch 1 on stage 2"
    assert str(activity.now(is_late=False).action) == "the optimizer step"


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which 79.54 GiB is"
    " free. 819.20 MiB allowed; Of the allocated memory 16.26 MiB is allocated by PyTorch, and 5.74 MiB is"
    " reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting"
    " PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory"
    " Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
)


def test_whole_sentences_are_kept_and_advice_is_not():
    """As torch 2.13 says it."""
    assert shortened(OUT_OF_MEMORY) == OUT_OF_MEMORY.split(" If reserved")[0]
    assert shortened("one line\n  and another") == "one line and another"
    long = "x" * 400
    assert shortened(long) == long
