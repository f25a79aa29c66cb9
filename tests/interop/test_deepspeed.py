"""DeepSpeed's own config class reads our JSON, and its pipeline engine trains with it, on CPU ranks."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from autotune.report.export.export import export
from autotune.report.load import read_report
from tests.report.export.reports import make_report

pytestmark = [
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed"),
    pytest.mark.filterwarnings("default"),  # it leaves the file that it reads open
]

SMALL = "--layers 4 --stages 2 --hidden 32 --heads 4 --seq-len 16 --vocab 64 --batch 16 --micro-batches 2,4,8"
STEPS = Path(__file__).with_name("deepspeed_steps.py")
CPU = {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("micro_batches", [4, 8, 16])
def test_its_config_holds_m(tmp_path, micro_batches):
    from deepspeed.runtime.config import DeepSpeedConfig

    path = tmp_path / "ds.json"
    path.write_text(export(make_report((micro_batches, "1F1B")), "deepspeed").text)
    config = DeepSpeedConfig(str(path))
    assert config.gradient_accumulation_steps == micro_batches
    assert config.train_micro_batch_size_per_gpu == 64 // micro_batches
    assert config.train_batch_size == 64


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    """A report of a real run."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "autotune", "run", "--device", "cpu", "--quiet", *SMALL.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return folder / "report.json"


@pytest.mark.parametrize("data_parallel", [1, 2])
def test_its_engine_trains_with_our_m(report_file, tmp_path, data_parallel):
    report = read_report(report_file)
    (tmp_path / "ds.json").write_text(export(report, "deepspeed", data_parallel=data_parallel).text)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2 * data_parallel]
    command = [
        *torchrun,
        STEPS,
        "ds.json",
        2,
        json.dumps({name: value for name, value in asdict(report.workload).items() if value is not None}),
    ]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | CPU,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [json.loads(path.read_text()) for path in tmp_path.glob("rank-*.json")]
    spot = report.sweet_spot
    for rank in ranks:
        assert rank["micro_batches"] == spot.micro_batches
        assert rank["micro_batch_size"] == spot.micro_batch_size
        assert (rank["stages"], rank["data_parallel"], rank["global_batch"]) == (2, data_parallel, 16 * data_parallel)
        assert rank["pulled"] == 2 * spot.micro_batches  # in two steps
        assert all(math.isfinite(loss) for loss in rank["losses"])
        assert rank["losses"][1] < rank["losses"][0] == pytest.approx(math.log(64), abs=0.5)  # a guess among 64 tokens
    assert sorted(rank["stage"] for rank in ranks) == sorted([0, 1] * data_parallel)
