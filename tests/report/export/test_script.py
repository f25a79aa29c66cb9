"""The script for plain torch really trains, under torchrun, on this machine's cores."""

import os
import re
import subprocess
import sys

import pytest

from autotune.report.export.export import export
from tests.report.export.reports import make_report

pytestmark = pytest.mark.slow  # real ranks under torchrun

SIZES = {"layers": 4, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": 8}


@pytest.mark.parametrize(
    ("schedule", "virtual_stages", "facts"),
    [("1F1B", 1, {}), ("1F1B", 1, {"optimizer": "none"}), ("ZBVZeroBubble", 2, {"precision": "bf16"})],
    ids=["1F1B", "no optimizer", "V in bf16"],
)
def test_the_script_trains_under_torchrun(schedule, virtual_stages, facts, tmp_path):
    report = make_report((4, schedule), counts=(4,), ranks=2, virtual_stages=virtual_stages, **SIZES, **facts)
    (tmp_path / "pipeline.py").write_text(export(report, "torch").text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "pipeline.py"]
    local = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=local)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.fullmatch(r"loss (\S+), ([\d.]+) sequences/s\n", done.stdout)
    assert found, done.stdout
    assert float(found[1]) == pytest.approx(3.5, abs=0.5)  # about ln 32, the loss of a guess
    assert float(found[2]) > 0
