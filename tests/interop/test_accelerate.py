"""accelerate's own launch parser takes our flags, and its Megatron plugin finds m in what the launcher passes on."""

import shlex

import pytest

from autotune.report.export.export import export
from tests.report.export.reports import make_report


@pytest.fixture
def parser():
    launch = pytest.importorskip("accelerate.commands.launch", reason="accelerate is not installed")
    return launch.launch_command_parser()


def told(parser, micro_batches):
    text = export(make_report((micro_batches, "1F1B")), "accelerate").text
    mine = (
        "--num_machines",
        "1",
        "--num_processes",
        "4",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    )  # else in its config file
    return parser.parse_args([*shlex.split(text), *mine, "train.py"])


@pytest.mark.parametrize("micro_batches", [4, 8, 16])
def test_the_launch_parser_holds_m(parser, micro_batches):
    arguments = told(parser, micro_batches)
    assert arguments.use_megatron_lm
    assert arguments.megatron_lm_num_micro_batches == micro_batches
    assert arguments.megatron_lm_pp_degree == 4
    assert arguments.training_script == "train.py"


@pytest.mark.parametrize("data_parallel", [1, 2])
def test_the_plugin_of_a_rank_arrives_at_our_global_batch(parser, data_parallel, monkeypatch):
    from accelerate.utils import MegatronLMPlugin, prepare_multi_gpu_env

    for name, value in prepare_multi_gpu_env(told(parser, 8)).items():
        monkeypatch.setenv(name, value)
    plugin = MegatronLMPlugin()
    assert (plugin.pp_degree, plugin.num_micro_batches) == (4, 8)
    plugin.set_training_args(micro_batch_size=64 // 8, dp_degree=data_parallel)
    assert plugin.global_batch_size == 64 * data_parallel
