"""autotune check as its users run it: exit codes, files for CI systems."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import InputError, Regression
from autotune.records.base import write_record
from tests.report.check.reports import HERE, report_of


@pytest.fixture
def files(tmp_path):
    """Paths of a baseline, of one like it, of a slower one, of one from elsewhere."""
    made = {
        "baseline": report_of(),
        "same": report_of(steps=(0.502, 0.5, 0.499)),
        "slower": report_of(steps=(0.55, 0.551, 0.549)),
        "uneven": report_of(steps=(0.52,) * 3, drift=0.05),
        "elsewhere": report_of(environment=HERE | {"cores": 7, "device": "a <device> & more"}),
    }
    for name, report in made.items():
        write_record(tmp_path / f"{name}.json", report)
    return lambda name: str(tmp_path / f"{name}.json")


def run(*arguments):
    return CliRunner().invoke(app, ["check", *arguments])


def test_no_regression(files):
    done = run(files("same"), "--baseline", files("baseline"))
    assert done.exit_code == 0
    assert "No regression of 3.0% or more." in done.stdout


def test_a_regression_ends_with_exit_code_6(files):
    done = run(files("slower"), "--baseline", files("baseline"))
    assert isinstance(done.exception, Regression)
    assert done.exception.exit_code == 6
    assert str(done.exception) == "throughput 128.0 -> 116.4 sequences/s: 9.1% less; 3.0% is allowed"
    assert "regression" in done.stdout


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_regression_is_the_exit_code_where_nobody_reads_the_table(more, files):
    command = [sys.executable, "-m", "autotune", "check", files("slower"), "--baseline", files("baseline"), *more]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 6
    assert done.stderr.startswith("autotune: throughput 128.0 -> 116.4 sequences/s")
    assert len(done.stderr.splitlines()) == 1


def test_a_change_is_stated_once_and_in_one_direction(files):
    done = run(files("slower"), "--baseline", files("baseline"))
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("throughput")]
    assert "9.1% less" in line
    for other in ("worse by", "10.0%", "-9.1%", "more"):
        assert other not in line
    assert done.stdout.count("9.1% less") == 1


def test_what_is_allowed_can_be_more(files):
    assert run(files("slower"), "--baseline", files("baseline"), "--max-regression", "20%").exit_code == 0


def test_noise_is_said_and_no_number_of_runs_is_promised(files):
    done = run(files("uneven"), "--baseline", files("baseline"))
    assert done.exit_code == 0
    assert "throughput 128.0 -> 123.1 sequences/s: 3.8% less, too noisy to tell a regression of 3.0%" in done.stdout
    assert "would do" not in done.stdout


def test_several_runs_of_each_side(files):
    both = ("--baseline", files("baseline"), "--baseline", files("same"))
    done = run(files("same"), files("baseline"), *both, "--json")
    found = json.loads(done.stdout)
    assert (found["kind"], found["new_runs"], found["baseline_runs"]) == ("autotune.check", 2, 2)


def test_files_for_ci_systems(files, tmp_path):
    options = ("--markdown", str(tmp_path / "summary.md"), "--junit", str(tmp_path / "junit.xml"))
    assert run(files("slower"), "--baseline", files("baseline"), *options).exit_code != 0
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### autotune check: regression\n")
    assert "| throughput | 128.0 sequences/s | 116.4 sequences/s | 9.1% less |" in summary
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    assert suite.find("testcase/failure").get("message").startswith("throughput 128.0 -> 116.4 sequences/s: 9.1% less")


def test_what_cannot_be_told_is_skipped_in_junit(files, tmp_path):
    run(files("uneven"), "--baseline", files("baseline"), "--junit", str(tmp_path / "junit.xml"))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")


def test_words_from_a_report_are_text(files, tmp_path):
    done = run(files("elsewhere"), "--baseline", files("baseline"), "--markdown", str(tmp_path / "summary.md"))
    assert "device was cuda, is a <device> & more" in done.stdout
    assert "a &lt;device&gt; &amp; more" in (tmp_path / "summary.md").read_text()


def test_a_report_of_another_machine_is_refused_where_asked(files):
    for command in (("check", files("same"), "--baseline", files("same")), ("export", files("same"), "--to", "shell")):
        done = CliRunner().invoke(app, [*command, "--verify-environment"])
        assert isinstance(done.exception, InputError)
        assert "the report is not of this machine as it is now" in str(done.exception)
        assert done.stdout == ""
