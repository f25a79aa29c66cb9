"""autotune ramp as its users run it."""

import json

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import UsageError
from autotune.records.base import write_record
from tests.report.export.reports import make_report

RAMP = ("--rampup-batch-size", "16", "16", "3000", "--train-samples", "10000")


@pytest.fixture
def report(tmp_path):
    write_record(tmp_path / "report.json", make_report())
    return str(tmp_path / "report.json")


def run(*arguments):
    return CliRunner().invoke(app, ["ramp", *arguments])


def test_a_row_for_each_phase_and_the_best_size(report):
    done = run(report, *RAMP)
    assert done.exit_code == 0
    assert "serve all phases best" in done.stdout
    rows = [
        line.split()
        for line in done.stdout.splitlines()
        if line.split() and line.split()[0] in ("16", "32", "48", "64")
    ]
    assert [row[:2] for row in rows] == [["16", "63"], ["32", "31"], ["48", "21"], ["64", "110"]]


def test_json_has_every_phase(report):
    document = json.loads(run(report, *RAMP, "--json").stdout)
    assert document["kind"] == "autotune.ramp"
    assert [phase["global_batch"] for phase in document["sizes"][0]["phases"]] == [16, 32, 48, 64]


def test_replicas_multiply_the_full_batch(report):
    document = json.loads(run(report, *RAMP, "--data-parallel", "2", "--json").stdout)
    assert document["sizes"][0]["phases"][-1]["global_batch"] == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--global-batch-size", "70"), "never comes to the global batch of 70"),
        (("--schedule", "1F1B,GPipe"), "--schedule: give one"),
        (("--data-parallel", "0"), "numbers of 1 or more"),
    ],
)
def test_wrong_usage(report, options, message):
    done = run(report, *RAMP, *options)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_the_new_form_and_its_notes(report):
    text = "0:16 3K:64"
    done = run(report, "--step-batch-size-schedule", text, "--train-samples", "10000")
    assert done.exit_code == 0
    assert "ignores" not in done.stderr
    assert "ignores --rampup-batch-size" in run(report, *RAMP).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --rampup-batch-size"),
        ((*RAMP[:4], "--step-batch-size-schedule", "0:16"), "give --rampup-batch-size"),
        (("--step-batch-size-schedule", "0:16", "--global-batch-size", "32"), "the schedule ends with 16"),
    ],
)
def test_one_of_the_two_forms(report, words, message):
    done = run(report, *words, "--train-samples", "10000")
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
