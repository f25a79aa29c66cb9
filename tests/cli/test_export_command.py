"""``autotune export`` and ``autotune.load`` as a user has them."""

import json
import os
import subprocess
import sys

import pytest

from autotune.records.base import write_record
from autotune.report.export.targets import TARGETS
from tests.report.export.reports import make_report


@pytest.fixture
def here(tmp_path):
    write_record(tmp_path / "report.json", make_report())
    return tmp_path


def run(here, *arguments):
    command = [sys.executable, "-m", "autotune", "export", "report.json", *arguments]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60)


def test_stdout_holds_what_the_launcher_reads_and_stderr_what_its_user_reads(here):
    done = run(here, "--to", "megatron-lm", "--data-parallel", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "--pipeline-model-parallel-size 4 --micro-batch-size 8 --global-batch-size 128\n"
    assert "m = 8 of 1F1B: 8 sequences x 8 micro-batches x 2 replicas = 128 sequences per step" in done.stderr
    assert run(here, "--to", "megatron-lm", "--quiet").stderr == ""


def test_help_names_every_launcher():
    command = [sys.executable, "-m", "autotune", "export", "--help"]
    done = subprocess.run(command, env=os.environ | {"COLUMNS": "400"}, capture_output=True, text=True, timeout=60)
    named = done.stdout.replace(".", " ").replace(",", " ").split()
    assert set(TARGETS) <= set(named)


def test_a_config_file_is_changed_in_place_and_keeps_its_mode(here):
    config = here / "ds.json"
    config.write_text('{"bf16": {"enabled": true}}')
    config.chmod(0o640)
    done = run(here, "--to", "deepspeed", "--merge", "ds.json", "--out", "ds.json")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert json.loads(config.read_text())["gradient_accumulation_steps"] == 8
    assert config.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in here.iterdir()) == ["ds.json", "report.json"]


def test_a_file_from_elsewhere_keeps_every_other_byte(here):
    config = here / "run.yaml"
    config.write_bytes("\ufeff# é\r\nparallelism:\r\n  dp: 2\r\ntokens:\r\n  micro_batch_size: 1  # b".encode())
    done = run(here, "--to", "nanotron", "--merge", "run.yaml", "--out", "run.yaml")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert config.read_bytes().decode() == (
        "\ufeff# é\r\nparallelism:\r\n  dp: 2\r\n  pp: 4\r\n  pp_engine: 1f1b\r\n"
        "tokens:\r\n  micro_batch_size: 8  # b\r\n  batch_accumulation_per_replica: 8"
    )
    assert "data-parallel replicas: 2, from run.yaml (parallelism.dp)" in done.stderr


def test_a_file_of_another_launcher_ends_in_one_line_that_names_the_key(here):
    config = here / "run.yaml"
    config.write_text("trainer: {devices: 1}\nmodel: {micro_batch_size: 4}\n")
    done = run(here, "--to", "nemo", "--merge", "run.yaml", "--out", "run.yaml")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "it is of NeMo 1, as model.micro_batch_size shows, not of NeMo 2" in done.stderr
    assert config.read_text() == "trainer: {devices: 1}\nmodel: {micro_batch_size: 4}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "horovod"], 2, "use one of megatron-lm"),
        (["--to", "nemo", "--data-parallel", "0"], 2, "--data-parallel"),
        (["--to", "deepspeed", "--merge", "absent.json"], 3, "cannot read absent.json"),
        (["--to", "nemo", "--out", "no/such/place"], 3, "cannot write no/such/place"),
    ],
)
def test_bad_input_ends_in_one_line(here, arguments, code, words):
    done = run(here, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_reads_a_report_without_torch(here):
    program = (
        "import sys, autotune\n"
        "report = autotune.load('report.json')\n"
        "print(report.sweet_spot.micro_batches, 'torch' in sys.modules)\n"
        "try: autotune.load('absent.json')\n"
        "except autotune.errors.InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, timeout=60)
    assert done.stdout == "8 False\ncannot read absent.json: No such file or directory\n", done.stderr
