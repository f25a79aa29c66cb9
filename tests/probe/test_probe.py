"""The probe in processes that know nothing of it: plain scripts, under torchrun, beside a user's own sitecustomize."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import autotune.probe
from autotune.logs.noted import Notes, noted_step

SITE = Path(autotune.probe.__file__).parent / "site"
TRAIN = """
import sys, torch
optimizers = [{kind}([torch.nn.Parameter(torch.ones(4))], lr=0.1{more}) for _ in range({count})]
for number in range(5):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones(4)
        optimizer.step()
print("done", "sitecustomize" in sys.modules and getattr(sys.modules["sitecustomize"], "MARK", "-"))
"""


def run(folder, *words, probe="", path=(), timeout=120):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SITE), *map(str, path), str(Path(autotune.probe.__file__).parents[2])]),
        "AUTOTUNE_TRIAL_DIR": str(folder),
        "AUTOTUNE_PROBE": probe,
    }
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return done


def script(folder, text):
    path = folder / "train.py"
    path.write_text(text)
    return path


def notes(folder):
    found = Notes(folder)
    found.look()
    return found


@pytest.mark.parametrize(
    ("kind", "more", "count"),
    [
        ("torch.optim.AdamW", "", 1),
        ("torch.optim.AdamW", ", fused=True", 1),
        ("torch.optim.SGD", ", foreach=True", 3),  # several optimizers are one step
    ],
)
def test_every_step_is_noted_once(tmp_path, kind, more, count):
    run(tmp_path, script(tmp_path, TRAIN.format(kind=kind, more=more, count=count)))
    found = notes(tmp_path)
    ends = found.finished()
    assert (len(ends), found.ranks) == (5, 1)
    assert ends == sorted(ends)
    assert found.peaks[0] > 50 * 2**20
    assert found.retries == (0,)


@pytest.mark.parametrize("switch", ["off", "OFF"])
def test_it_can_be_switched_off(tmp_path, switch):
    run(tmp_path, script(tmp_path, TRAIN.format(kind="torch.optim.SGD", more="", count=1)), probe=switch)
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_process_without_torch_is_left_alone(tmp_path):
    run(tmp_path, "-c", "import sys; assert 'torch' not in sys.modules; import json")
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_users_own_sitecustomize_is_loaded_too(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("MARK = 'mine'\n")
    text = TRAIN.format(kind="torch.optim.SGD", more="", count=1)
    done = run(tmp_path, script(tmp_path, text), path=[own])
    assert done.stdout.strip() == "done mine"
    assert len(notes(tmp_path).finished()) == 5


def test_a_folder_that_cannot_be_written_does_not_stop_the_training(tmp_path):
    text = TRAIN.format(kind="torch.optim.SGD", more="", count=1)
    assert "done" in run(tmp_path / "not" / "there", script(tmp_path, text)).stdout


@pytest.mark.slow
def test_ranks_under_torchrun(tmp_path):
    text = (
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "parameter = torch.nn.Parameter(torch.ones(2))\n"
        "optimizer = torch.optim.AdamW([parameter])\n"
        "for number in range(4):\n"
        "    parameter.grad = torch.ones(2)\n"
        "    dist.all_reduce(parameter.grad)\n"
        "    optimizer.step()\n"
        "dist.destroy_process_group()\n"
    )
    run(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script(tmp_path, text))
    found = notes(tmp_path)
    assert (found.ranks, len(found.finished()), len(found.peaks)) == (2, 4, 2)


@pytest.mark.parametrize("has_optimizer", [True, False])
def test_a_step_that_the_script_notes_itself(tmp_path, has_optimizer):
    """Where the script says it, the optimizer's own steps do not count a second time."""
    stepping = "parameter.grad = torch.ones(2); optimizer.step()" if has_optimizer else "pass"
    text = (
        "import torch, autotune.probe\n"
        "parameter = torch.nn.Parameter(torch.ones(2)); optimizer = torch.optim.SGD([parameter])\n"
        "autotune.probe.step()\n"
        f"for number in range(3):\n    {stepping}\n    autotune.probe.step()\n"
    )
    run(tmp_path, script(tmp_path, text))
    assert len(notes(tmp_path).finished()) == 4


def test_outside_of_a_trial_it_does_nothing(monkeypatch):
    monkeypatch.delenv("AUTOTUNE_TRIAL_DIR", raising=False)
    autotune.probe.step()


def test_notes_are_read_while_they_are_written(tmp_path):
    found, path = Notes(tmp_path), tmp_path / "steps-0-1.jsonl"
    line = '{"rank": 0, "step": %d, "t": %f, "resident": 7, "allocated": 5, "reserved": 6, "retries": 2}\n'
    path.write_text(line % (1, 1.5) + (line % (2, 2.5))[:20])
    found.look()
    assert found.finished() == [1.5]
    path.write_text(line % (1, 1.5) + line % (2, 2.5))
    (tmp_path / "steps-1-2.jsonl").write_text((line % (1, 1.75)).replace('"rank": 0', '"rank": 1'))
    found.look()
    assert found.finished() == [1.75]  # the second rank has not ended the second step
    assert (found.peaks, found.retries, found.last[0].reserved_bytes) == ((5, 5), (2, 2), 6)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"rank": 0}', b'{"rank": "a", "step": 1, "t": 1}'])
def test_lines_that_are_no_step(line):
    assert noted_step(line) is None
