"""Megatron-LM's own calculator arrives at our m, and its own argument parser knows our flags."""

import argparse
import shlex

import pytest

from autotune.report.export.export import export
from tests.report.export.reports import make_report

# The sources of the package carry docstrings with backslashes, and it looks for CUDA libraries when imported.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def calculator():
    return pytest.importorskip("megatron.core.num_microbatches_calculator", reason="megatron-core is not installed")


@pytest.fixture
def arguments():
    return pytest.importorskip("megatron.training.arguments", reason="megatron-core comes without megatron.training")


def flags(report, data_parallel=1):
    """As any argparse reads them."""
    parser = argparse.ArgumentParser()
    for name in ("pipeline-model-parallel-size", "micro-batch-size", "global-batch-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args(shlex.split(export(report, "megatron-lm", data_parallel=data_parallel).text))


@pytest.mark.parametrize("micro_batches", [4, 8, 16])
@pytest.mark.parametrize("data_parallel", [1, 2, 8])
def test_the_calculator_yields_m(calculator, micro_batches, data_parallel):
    told = flags(make_report((micro_batches, "1F1B")), data_parallel)
    calculator.init_num_microbatches_calculator(
        rank=0,
        rampup_batch_size=None,
        global_batch_size=told.global_batch_size,
        micro_batch_size=told.micro_batch_size,
        data_parallel_size=data_parallel,
    )
    try:
        assert calculator.get_num_microbatches() == micro_batches
        assert calculator.get_micro_batch_size() == 64 // micro_batches
    finally:
        calculator.destroy_num_microbatches_calculator()


@pytest.mark.parametrize("virtual_stages", [1, 3])
def test_its_parser_knows_the_flags(arguments, virtual_stages):
    schedule = "1F1B" if virtual_stages == 1 else "Interleaved1F1B"
    text = export(make_report((8, schedule), virtual_stages=virtual_stages), "megatron-lm", data_parallel=2).text
    parser = arguments.add_megatron_arguments(argparse.ArgumentParser(allow_abbrev=False))
    told = parser.parse_args(shlex.split(text))
    assert (told.pipeline_model_parallel_size, told.micro_batch_size, told.global_batch_size) == (4, 8, 128)
    assert told.num_virtual_stages_per_pipeline_rank == (virtual_stages if virtual_stages > 1 else None)
