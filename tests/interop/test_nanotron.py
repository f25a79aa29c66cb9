"""nanotron's own config classes read our YAML, merged into a config of a user's."""

import logging
import sys
import types

import pytest

from autotune.report.export.export import export
from tests.report.export.reports import make_report

pytestmark = pytest.mark.filterwarnings("default")  # of what it imports

MINE = """\
general: {project: mine}
parallelism: {dp: 1, pp: 1, tp: 2}  # one stage so far
model:
  model_config: {hidden_size: 64}
  init_method: {std: 0.02}
tokenizer: {}
tokens: {sequence_length: 32, train_steps: 10, micro_batch_size: 1, batch_accumulation_per_replica: 1}
"""


class NoLogging(types.ModuleType):
    """In the place of nanotron.logging, which 0.4 cannot import before its config, nor its config before it."""

    get_logger = staticmethod(logging.getLogger)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def config():
    pytest.importorskip("nanotron", reason="nanotron is not installed")
    import nanotron

    nanotron.logging = sys.modules["nanotron.logging"] = NoLogging("nanotron.logging")
    import nanotron.config

    return nanotron.config


@pytest.mark.parametrize(
    ("schedule", "engine"),
    [("1F1B", "OneForwardOneBackwardPipelineEngine"), ("GPipe", "AllForwardAllBackwardPipelineEngine")],
)
@pytest.mark.parametrize("data_parallel", [1, 2])
def test_its_config_holds_m(config, tmp_path, schedule, engine, data_parallel):
    path = tmp_path / "run.yaml"
    path.write_text(MINE)
    made = export(make_report((8, schedule)), "nanotron", data_parallel=data_parallel, merge=path)
    path.write_text(made.text)
    read = config.get_config_from_file(str(path))
    assert (read.tokens.batch_accumulation_per_replica, read.tokens.micro_batch_size) == (8, 8)
    assert read.global_batch_size == 64 * data_parallel
    assert (read.parallelism.dp, read.parallelism.pp, read.parallelism.tp) == (data_parallel, 4, 2)
    assert type(read.parallelism.pp_engine).__name__ == engine
