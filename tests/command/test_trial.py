"""Trials of real commands: what each fault ends as, and that no process of it is left."""

import os
import signal
import socket
import sys
import time

import pytest

from autotune.command.files import Setting
from autotune.command.processes import members
from autotune.command.trial import CommandSpec, StepLimit, ignore, run_trial
from autotune.logs.formats.table import AUTO, formats_for
from autotune.logs.log import StepShape

STEPS = """
import time
for n in range(1, {count}):
    time.sleep({each})
    print(f'steps: {{n}} loss: 7.1 iter time (s): {{{each}:.3f}} samples/sec: 9', flush=True)
"""
LIMIT = StepLimit(20.0, 1.5)


def steps(count=200, each=0.02):
    return STEPS.format(count=count, each=each)


def run(folder, *words, limit=LIMIT, wanted=3, read=AUTO, values=(), tell=ignore, **more):
    folder.mkdir(exist_ok=True)
    spec = CommandSpec(words=tuple(map(str, words)), formats=formats_for(read), **more)
    begun = time.monotonic()
    ran = run_trial(spec, dict(values), folder, StepShape(), limit, wanted, lambda number, seconds: True, tell)
    assert time.monotonic() - begun < 60
    assert members(str(folder), 0) == []
    return ran


def script(folder, text, *words, **more):
    folder.mkdir(exist_ok=True)
    path = folder / "train.py"
    path.write_text(text)
    return run(folder, sys.executable, path, *words, **more)


def test_a_command_is_ended_as_soon_as_enough_steps_are_timed(tmp_path):
    ran = script(tmp_path, steps())
    assert ran.failure is None
    assert ran.steps == pytest.approx((0.02,) * 3, abs=0.01)
    assert ran.wall_s < 10
    assert "steps: 3 loss" in (tmp_path / "output.log").read_text()


def test_a_short_command_is_timed_as_far_as_it_goes(tmp_path):
    ran = script(tmp_path, steps(count=4), wanted=10)
    assert len(ran.steps) == 2 and ran.failure is None


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("raise SystemExit(0)", "crash", "exited with 0 before its first step: no step of it was seen"),
        (
            "raise ValueError('no such layer')",
            "crash",
            "exited with 1 before its first step: ValueError: no such layer",
        ),
        (steps(3) + "import sys; sys.exit(7)", "crash", "exited with 7 after 2 steps"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crash", "killed by SIGKILL before its first step"),
        pytest.param(
            steps(3) + "time.sleep(100)",
            "hang",
            "no step for 2 s after step 2",
            marks=pytest.mark.slow,
            id="hang_later",
        ),
        pytest.param(
            "import time; time.sleep(100)", "hang", "before its first step", marks=pytest.mark.slow, id="hang"
        ),
        (steps().replace("7.1", "nan"), "model_error", "loss or gradients are not finite"),
        (
            "import time\nprint('[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 786.00 MiB. GPU"
            " 0 has a total capacity of 79.15 GiB of which 141.25 MiB is free.', flush=True)\ntime.sleep(100)",
            "out_of_memory",
            "Tried to allocate 786.00 MiB",
        ),
    ],
    ids=["exits", "crash", "crash_later", "killed", None, None, "nan", "memory"],
)
def test_outcomes(tmp_path, text, kind, message):
    ran = script(tmp_path, text, limit=StepLimit(5.0, 1.5))
    assert ran.failure.kind == kind
    assert message in ran.failure.message
    assert "\n" not in ran.failure.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "print('loading\\x1b[0m shards', flush=True)\nimport time; time.sleep(4.5)",
            "its last line is 'loading shards'",
        ),
        ("import time; time.sleep(4.5)", "it has written nothing"),
    ],
)
def test_a_command_that_shows_no_step_for_long_is_told_of_once(tmp_path, text, message):
    told = []
    script(tmp_path, text, limit=StepLimit(20.0, 1.5, 3.0), tell=told.append)
    assert len(told) == 1
    assert told[0].startswith("no step was seen in 3 s: ")
    assert message in told[0]


def test_what_memory_lacked_and_on_which_rank(tmp_path):
    text = (
        "print('[rank3]: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB of which 1.00 GiB is free')"
    )
    failure = script(tmp_path, text).failure
    assert (failure.rank, failure.short_bytes) == (3, 2**30)


@pytest.mark.slow
def test_memory_that_the_system_refuses(tmp_path):
    """A real one: the process may not have as much as it asks for."""
    text = (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "import torch\ntorch.empty(2**33, dtype=torch.uint8)\n"
    )
    assert script(tmp_path, text).failure.kind == "out_of_memory"


@pytest.mark.slow
def test_one_rank_of_torchrun_that_runs_out_of_memory_ends_all(tmp_path):
    text = (
        "import os, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    import resource, torch\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"
        "    torch.empty(2**35, dtype=torch.uint8)\n"
        "time.sleep(100)\n"
    )
    (tmp_path / "ranks.py").write_text(text)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    ran = run(tmp_path, *torchrun, tmp_path / "ranks.py", limit=StepLimit(60.0, 60.0))
    assert ran.failure.kind == "out_of_memory"


@pytest.mark.slow
def test_a_child_that_survives_sigterm_and_has_a_session_of_its_own(tmp_path):
    child = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(1000)"
    text = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
    assert script(tmp_path, text + steps()).failure is None


def test_a_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f"import socket; socket.socket().bind(('127.0.0.1', {port}))"
        failure = script(tmp_path, text).failure
    assert (failure.kind, failure.message.startswith("a port that the command wanted was in use")) == ("crash", True)


def test_a_command_that_is_not_there(tmp_path):
    failure = run(tmp_path, "/no/such/program").failure
    assert failure.message == "/no/such/program could not be started: No such file or directory"


def test_output_without_newline(tmp_path):
    """Progress bars go back to the beginning of their line."""
    text = (
        "import sys, time\nfor n in range(1, 100):\n    time.sleep(0.03)\n"
        "    sys.stderr.write(f'\\r 3%|# | {n}/100 [00:01<00:40,  2.35it/s]')\n    sys.stderr.flush()\n"
    )
    ran = script(tmp_path, text)
    assert ran.failure is None
    assert all(0.02 < one < 0.2 for one in ran.steps)


def test_binary_output(tmp_path):
    text = "import os\nos.write(1, bytes(range(256)) * 5000)\nprint()\n" + steps()
    assert script(tmp_path, text).failure is None


@pytest.mark.slow
def test_a_gigabyte_of_output_is_skimmed(tmp_path):
    text = "import os\nline = b'x' * 120 + b'\\n'\nfor _ in range(1000):\n    os.write(1, line * 8600)\n" + steps()
    ran = script(tmp_path, text, limit=StepLimit(50.0, 5.0))
    assert ran.failure is None
    assert (tmp_path / "output.log").stat().st_size <= 64 * 2**20


def test_a_log_that_the_command_writes_itself(tmp_path):
    (tmp_path / "old.log").write_text("steps: 1 loss: 7.1 iter time (s): 9.000 samples/sec: 9\n" * 9)
    os.utime(tmp_path / "old.log", (1, 1))
    text = steps().replace("flush=True", f"file=open('{tmp_path}/new.log', 'a'), flush=True")
    ran = script(tmp_path, text, globs=(f"{tmp_path}/*.log",))
    assert ran.steps == pytest.approx((0.02,) * 3, abs=0.01)


@pytest.mark.slow
def test_the_probe_times_what_prints_nothing(tmp_path):
    text = (
        "import time, torch\nparameter = torch.nn.Parameter(torch.ones(2)); optimizer = torch.optim.SGD([parameter])\n"
        "for n in range(100):\n    time.sleep(0.05)\n    parameter.grad = torch.ones(2); optimizer.step()\n"
    )
    ran = script(tmp_path, text)
    assert ran.watch.seen.source == "probe"
    assert all(0.05 <= one < 0.5 for one in ran.steps)
    assert ran.watch.peaks(1)[0] > 50 * 2**20


def test_without_the_probe_nothing_is_seen_of_what_prints_nothing(tmp_path):
    assert script(tmp_path, "import time; time.sleep(3)", has_probe=False).failure.message.startswith(
        "the command exited"
    )


def test_values_reach_arguments_environment_and_files(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("tokens:\n  micro_batch_size: 1  # sequences\n")
    text = (
        "import os, sys\nprint(sys.argv[1], os.environ['AUTOTUNE_MICRO_BATCHES'], open(sys.argv[2]).read())\n" + steps()
    )
    script(
        tmp_path,
        text,
        "--m={micro_batches}",
        config,
        values={"micro_batches": "8", "micro_batch_size": "4"},
        settings=(Setting.parse(f"{config}:tokens.micro_batch_size={{micro_batch_size}}"),),
    )
    written = (tmp_path / "output.log").read_text()
    assert written.startswith("--m=8 8 tokens:\n  micro_batch_size: 4  # sequences\n")
    assert (tmp_path / "files" / "config.yaml").is_file()
    assert config.read_text() == "tokens:\n  micro_batch_size: 1  # sequences\n"


@pytest.mark.slow
def test_a_process_that_ignores_ctrl_c_while_it_is_ended(tmp_path):
    text = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    )
    begun, before = time.monotonic(), signal.getsignal(signal.SIGINT)
    assert script(tmp_path, text + steps()).failure is None
    assert time.monotonic() - begun < 30
    assert signal.getsignal(signal.SIGINT) is before
