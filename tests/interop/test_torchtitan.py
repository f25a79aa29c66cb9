"""torchtitan's own config managers read what we write: flags for 0.3, flags and TOML for 0.2."""

import json
import shlex
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from autotune.report.export.export import export
from tests.report.export.reports import make_report

NEW = pytest.mark.skipif(find_spec("torchtitan") is None, reason="torchtitan is not installed")
OLD_PATH = Path(sys.prefix, "torchtitan-0.2")  # beside the newer one, where make interop puts it
OLD = pytest.mark.skipif(not OLD_PATH.is_dir(), reason="torchtitan 0.2 is not installed")
READ = """
import json, sys, types
from dataclasses import asdict
package = sys.modules["torchtitan"] = types.ModuleType("torchtitan")  # its own would load Triton
package.__path__ = [sys.argv[1] + "/torchtitan"]
from torchtitan.config import ConfigManager
config = ConfigManager().parse_args(sys.argv[2:])
keys = ("local_batch_size", "global_batch_size")
print(json.dumps({key: getattr(config.training, key) for key in keys} | asdict(config.parallelism)))
"""
TOML = """\
[training]  # mine
local_batch_size = 8
seq_len = 32

[parallelism]
tensor_parallel_degree = 2
"""


def check(found, micro_batches, schedule, data_parallel, tensor_parallel=1):
    """The batch identity, and the keys of the pipeline."""
    local, size = found["local_batch_size"], found["pipeline_parallel_microbatch_size"]
    assert local // size == micro_batches
    assert local % size == 0
    assert (local, found["global_batch_size"]) == (64, 64 * data_parallel)
    assert (found["pipeline_parallel_degree"], found["pipeline_parallel_schedule"]) == (4, schedule)
    assert found["tensor_parallel_degree"] == tensor_parallel


@NEW
@pytest.mark.filterwarnings("default")  # what it imports uses names that torch has deprecated
@pytest.mark.parametrize("micro_batches", [4, 8, 16])
@pytest.mark.parametrize("schedule", ["1F1B", "GPipe"])
def test_the_config_manager_of_0_3_reads_the_flags(micro_batches, schedule):
    from torchtitan.config import ConfigManager

    words = shlex.split(export(make_report((micro_batches, schedule)), "torchtitan", data_parallel=2).text)
    config = ConfigManager().parse_args(["--module", "tests.interop.titan_config", "--config", "mine", *words])
    found = asdict(config.training) | asdict(config.parallelism)
    check(found, micro_batches, schedule, 2)
    assert found["pipeline_parallel_layers_per_stage"] is None


@NEW
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("layers", "virtual_stages"), [(46, 2), (30, 2), (46, 3)])
def test_0_3_is_told_the_layers_of_a_stage(layers, virtual_stages):
    from torchtitan.config import ConfigManager

    report = make_report((8, "Interleaved1F1B"), virtual_stages=virtual_stages, layers=layers)
    words = shlex.split(export(report, "torchtitan").text)
    config = ConfigManager().parse_args(["--module", "tests.interop.titan_config", "--config", "mine", *words])
    each = config.parallelism.pipeline_parallel_layers_per_stage
    assert -(-(layers + 2) // each) == 4 * virtual_stages  # as its docstring counts: embedding and head are one each


def read_by_old(*arguments):
    """The settings that 0.2 arrives at."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(OLD_PATH), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@OLD
def test_the_config_manager_of_0_2_reads_the_flags():
    text = export(make_report((8, "1F1B")), "torchtitan", data_parallel=2, version="0.2").text
    check(read_by_old(*shlex.split(text)), 8, "1F1B", 2)


@OLD
def test_the_config_manager_of_0_2_reads_the_merged_file(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(TOML)
    path.write_text(export(make_report((8, "1F1B")), "torchtitan", version="0.2", merge=path).text)
    assert "# mine" in path.read_text()
    check(read_by_old("--job.config_file", path), 8, "1F1B", 1, tensor_parallel=2)
