"""What the kernel says of ranks that died: out of memory is told from a kill by hand, in a real control group."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.pipeline.control.activity import Action
from autotune.pipeline.control.diagnose import (
    CONTROL_GROUPS,
    diagnose_exit,
    diagnose_timeout,
    last_exception,
    oom_kills,
)
from autotune.pipeline.hosts.wire import Assignment, ProcessStatus
from autotune.records.failure import Failure
from autotune.records.plain import decode
from tests.killing import wait_until

LIMIT = 2**30
CODE = """
from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.records.failure import Failure
from autotune.records.plain import encode
from tests.pipeline.faults import faulty_rank
from tests.pipeline.test_faults import BAD, GOOD, P, WORK

if __name__ == "__main__":
    with Ranks(P, "cpu", faulty_rank(FAULT, 1, BAD.micro_batch_size)) as ranks:
        build(ranks, WORK, BAD.placement)
        for plan in (BAD, GOOD):
            outcome = measure_candidate(ranks, WORK, plan, 0.1, 1, lambda *_: True)
            print(encode(outcome).decode() if isinstance(outcome, Failure) else outcome.model_dump_json())
"""


@pytest.fixture
def group():
    """A control group of version 1 with LIMIT bytes, where this process may make one."""
    path = CONTROL_GROUPS / "memory" / f"autotune-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    yield path
    assert wait_until(lambda: not (path / "cgroup.procs").read_text(), 30)
    assert wait_until(lambda: is_gone(path), 10)


def is_gone(group):
    """Removes it; the kernel may still be at work on processes that have ended."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def outcomes(group, fault):
    """Of the candidate that meets the fault, and of the next one; all in the control group."""
    command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group, sys.executable, "-c"]
    command.append(CODE.replace("FAULT", repr(fault)))
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_what_the_kernel_kills_for_want_of_memory_ran_out_of_memory(group):
    first, healthy = outcomes(group, "out of memory")
    failure = decode(Failure, first)
    assert (failure.kind, failure.rank, failure.stage) == ("out_of_memory", 1, 1)
    assert "the forward of micro-batch 0 on stage 1: killed by the kernel" in failure.message
    assert healthy["step_times_s"]


@pytest.mark.slow
def test_a_kill_by_hand_is_a_crash(group):
    first, healthy = outcomes(group, "SIGKILL")
    assert (first["kind"], first["rank"]) == ("crash", 1)
    assert healthy["step_times_s"]


def test_kills_are_counted_where_the_kernel_tells():
    counted = oom_kills()
    assert counted is None or counted >= 0


LATE_ADVICE = """\
Traceback (most recent call last):
  File "worker.py", line 1, in serve
    raise RuntimeError("cuda:2 cannot be used")
ValueError: an older one

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker.py", line 1, in serve
RuntimeError: cuda:2 cannot be used: CUDA error: out of memory
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
For more detailed error information, run with CUDA_LOG_FILE=stderr
"""


def test_the_last_words_of_a_rank_that_an_exception_ended_are_the_exception():
    """CUDA writes advice below it, in lines of its own."""
    status = ProcessStatus(
        stderr_tail=("run with CUDA_LOG_FILE=stderr",), exception=last_exception(LATE_ADVICE.splitlines())
    )
    ended = diagnose_exit(who(2), 1, status, was_out_of_memory=False)
    assert ended.message.endswith("last words: RuntimeError: cuda:2 cannot be used: CUDA error: out of memory")
    killed = diagnose_exit(who(2), -9, status, was_out_of_memory=False)
    assert killed.message.endswith("last words: run with CUDA_LOG_FILE=stderr")


def who(rank, host=None):
    return Assignment(rank=rank, ranks=4, local_rank=0, local_ranks=1, device="cpu", host=host)


def test_a_failure_names_the_host_where_there_are_several():
    forward = Action("forward", 1, 3, False)
    silent = {who(0, "alpha"): ProcessStatus(), who(1, "beta"): ProcessStatus(action=forward)}
    hung = diagnose_timeout(silent)
    assert (hung.rank, hung.kind) == (1, "hang")
    assert hung.message.startswith("rank 1 on beta, the forward of micro-batch 3 on stage 1: did not answer in time")
    both = diagnose_timeout({one: ProcessStatus() for one in silent})
    assert both.message == "no rank answered in time (rank 0 on alpha: nothing known; rank 1 on beta: nothing known)"
    gone = diagnose_exit(who(2, "beta"), 3, ProcessStatus(), was_out_of_memory=False)
    assert gone.message == "rank 2 on beta: exited with status 3; it left no last words"


def test_a_rank_without_a_traceback_has_no_exception():
    assert last_exception(["a warning", "  File"]) is None
