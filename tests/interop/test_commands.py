"""Real training scripts under their launchers, tuned by their commands: steps and memory are seen, nothing is left."""

import json
import os
import subprocess
import sys

import pytest

from autotune.command.processes import members
from autotune.report.load import read_report
from tests.commands.launched import ENVIRONMENT, LAUNCHED


def why_not(modules: str) -> str | None:
    """Return why modules, with commas between them, cannot be used here; None where they can."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {modules}"], capture_output=True, text=True, env=environment()
    )
    return None if done.returncode == 0 else f"{modules} cannot be imported: {done.stderr.strip().splitlines()[-1]}"


def environment() -> dict[str, str]:
    return os.environ | ENVIRONMENT


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launched", LAUNCHED, ids=lambda one: one.name)
def test_a_script_is_tuned_by_its_command(launched, tmp_path):
    if reason := why_not(launched.needs):
        pytest.skip(reason)
    launched.write_file(tmp_path)
    command = launched.run(16, "--micro-batches", "1,4,16", "--quiet")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    report = read_report(tmp_path / "report.json")
    ran = [row.measurement for row in report.candidates if row.measurement]
    assert len(ran) >= 2
    assert all(len(one.step_times_s) >= 2 and len(one.peak_memory_bytes) == launched.stages for one in ran)
    assert all(min(one.peak_memory_bytes) > 50 * 2**20 for one in ran)
    assert report.sweet_spot.confirmed
    trials = list((tmp_path / ".autotune" / "trials").iterdir())
    assert len(trials) >= report.search.trials
    assert [members(str(trial), 0) for trial in trials] == [[]] * len(trials)
    if launched.file is not None:
        name, text = launched.file
        assert (tmp_path / name).read_text() == text
        sizes = {json.loads((one / "files" / name).read_text())["train_micro_batch_size_per_gpu"] for one in trials}
        assert sizes == {row.micro_batch_size for row in report.candidates if row.measurement}
