"""Each launcher's own formatting code, called where it installs: what it prints is read as what it says.

Not Megatron-LM's: its training_log is in megatron.training, which the wheel of megatron-core has not.
"""

import ast
import importlib
import importlib.util
import logging
import sys
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional, Union

import pytest

from autotune.command.files import Setting
from autotune.command.ports import free_port
from autotune.command.trial import CommandSpec, StepLimit, run_trial
from autotune.logs.formats.table import formats_for
from autotune.logs.log import Log, StepShape, read_lines, step_seconds
from tests.commands.launched import LAUNCHED
from tests.interop.test_commands import environment, why_not

pytestmark = pytest.mark.filterwarnings("default")  # of what they import
FORMATS = {"DeepSpeed": "deepspeed", "torchrun": r"\| (?P<step_time_ms>[\d.]+) ms", "Trainer": "hf"}
HAS_LOSS = {"DeepSpeed", "Trainer"}


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("launched", [one for one in LAUNCHED if one.name in FORMATS], ids=lambda one: one.name)
def test_what_a_real_script_prints_is_read_without_the_probe(launched, tmp_path, monkeypatch):
    if reason := why_not(launched.needs):
        pytest.skip(reason)
    launched.write_file(tmp_path)
    values = {"micro_batches": "4", "micro_batch_size": "64", "batch": "256", "port": str(free_port())}
    values["trial_dir"] = str(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = CommandSpec(
        words=launched.words,
        formats=formats_for(FORMATS[launched.name]),
        settings=tuple(map(Setting.parse, launched.flags[1::2])),
        has_probe=False,
        environment=environment(),
    )
    ran = run_trial(
        spec, values, tmp_path, StepShape(256, None, launched.stages), StepLimit(200, 60), 3, lambda *_: True
    )
    assert ran.failure is None, ran.failure
    assert ran.watch.seen.source == "log"
    assert len(ran.steps) == 3
    assert all(0.005 < seconds < 30 for seconds in ran.steps), ran.steps
    assert ran.start_s + sum(ran.steps) < ran.wall_s
    assert (ran.watch.last_loss is not None) == (launched.name in HAS_LOSS)


@pytest.mark.slow
def test_lightnings_bar():
    """The one of tqdm, which counts micro-batches; the one of rich, where that is installed, prints only at the end."""
    if reason := why_not("pytorch_lightning"):
        pytest.skip(reason)
    from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

    log, written = Log(formats_for("lightning")), StringIO()
    bar = Tqdm(desc="Epoch 0", total=100, file=written, mininterval=0, dynamic_ncols=False, ncols=100)
    for number in range(6):
        bar.update(1)
        bar.refresh()
        for line in written.getvalue().replace("\r", "\n").splitlines():
            log.feed(line, 0.5 * number)
        written.truncate(0)
        written.seek(0)
    bar.close()
    assert [step.line.number for step in log.steps][-5:] == [2, 3, 4, 5, 6]
    assert step_seconds(log.steps, StepShape())[-5:] == pytest.approx([0.5] * 5)


def test_the_timer_of_deepspeeds_engine():
    if reason := why_not("deepspeed"):
        pytest.skip(reason)
    from deepspeed.utils.timer import ThroughputTimer

    told: list[str] = []
    switched = SimpleNamespace(enabled=True, synchronized=False)
    timer = ThroughputTimer(switched, batch_size=32, start_step=1, steps_per_output=1, logging_fn=told.append)
    for _ in range(6):
        timer.start()
        time.sleep(0.05)
        timer.stop(global_step=True)
    log = read_lines(told, formats_for("deepspeed"))
    assert len(log.steps) == 5
    assert all(0.05 <= one < 0.2 for one in step_seconds(log.steps, StepShape(sequences=32)))


@pytest.fixture
def titan_metrics(monkeypatch):
    """torchtitan's module of metrics, without what it imports for other ends: Triton and TensorBoard."""
    found = importlib.util.find_spec("torchtitan")
    if found is None:
        pytest.skip("torchtitan is not installed")
    package, board = ModuleType("torchtitan"), ModuleType("torch.utils.tensorboard")
    package.__path__ = list(found.submodule_search_locations or ())
    board.SummaryWriter = object
    monkeypatch.setitem(sys.modules, "torchtitan", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return importlib.import_module("torchtitan.components.metrics")


def test_torchtitans_metrics(titan_metrics, caplog):
    memory = SimpleNamespace(
        get_peak_stats=lambda: titan_metrics.DeviceMemStats(2.5, 3.1, 2.66, 2.80, 0, 0), reset_peak_stats=lambda: None
    )
    processor = SimpleNamespace(
        num_flops_per_token=1e9,
        time_last_log=0.0,
        ntokens_since_last_log=0,
        parallel_dims=SimpleNamespace(non_data_parallel_size=4),
        has_quantization=False,
        gpu_peak_flops=312e12,
        config=SimpleNamespace(log_freq=1),
        data_loading_times=[0.001],
        device_memory_monitor=memory,
        logger=SimpleNamespace(log=lambda *_: None),
        color=titan_metrics.utils.Color(),
    )
    caplog.set_level(logging.INFO)
    for step in range(1, 5):
        processor.ntokens_since_last_log, processor.data_loading_times = 8 * 4096, [0.001]
        processor.time_last_log = time.perf_counter() - 0.5
        titan_metrics.MetricsProcessor.log(processor, step, 8.1121, 8.2, 1.2345)
    log = read_lines([record.getMessage() for record in caplog.records], formats_for("torchtitan"))
    assert [step.line.number for step in log.steps] == [1, 2, 3, 4]
    assert step_seconds(log.steps, StepShape(8, 8 * 4096, 4)) == pytest.approx([0.5] * 4, rel=0.02)
    assert (log.steps[0].line.loss, log.steps[0].line.gradient_norm) == (8.1121, 1.2345)
    assert log.memory[0].reserved_bytes == pytest.approx(2.66 * 2**30)


def source_of(module: str, file: str) -> Path | None:
    """The file of a module that may be installed; it is not imported."""
    found = importlib.util.find_spec(module)
    places = [Path(place) / file for place in (found.submodule_search_locations if found else None) or ()]
    return next((place for place in places if place.is_file()), None)


def defined_in(path: Path, names: set[str], given: dict[str, Any]) -> dict[str, Any]:
    """The functions and classes of these names as the file defines them, nothing else of it run."""
    body = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) in names]
    space = dict(given)
    exec(compile(ast.Module(body, []), str(path), "exec"), space)
    return space


def test_nanotrons_logger():
    """Version 0.4 cannot be imported by itself, for its modules import each other in a circle."""
    path = source_of("nanotron", "logging.py")
    if path is None:
        pytest.skip("nanotron is not installed")
    told: list[str] = []
    given = {"log_rank": lambda text, **_: told.append(text), "get_logger": logging.getLogger, "logging": logging}
    given |= {
        "dataclass": dataclass,
        "Union": Union,
        "Optional": Optional,
        "List": list,
        "__name__": "nanotron.logging",
    }
    own = defined_in(path, {"human_format", "LogItem", "LoggerWriter"}, given)
    writer, item = own["LoggerWriter"](global_step=100), own["LogItem"]
    for step in range(1, 5):
        entries = [
            item("consumed_tokens", step * 262144, "human_format"),
            item("elapsed_time_per_iteration_ms", 1234.5, "human_format"),
            item("tokens_per_sec", 2.34567e9, "human_format"),
            item("tokens_per_sec_per_gpu", 2.34567e9 / 8, "human_format"),
            item("lm_loss", 10.8765, "human_format"),
            item("grad_norm", 0.98765, "human_format"),
        ]
        writer.add_scalars_from_list(entries, step)
    log = read_lines(told, formats_for("nanotron"))
    assert len(log.steps) == 4
    line = log.steps[0].line
    assert line.seconds == pytest.approx(1.2345, abs=line.half_width_s)
    assert line.tokens_s == pytest.approx(2.34567e9, rel=0.005)
    assert (line.loss, line.gradient_norm) == (10.9, 0.988)
