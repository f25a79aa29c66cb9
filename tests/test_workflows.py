"""The workflow files: valid by GitHub's own schema, and their commands are commands that there are."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from autotune.cli import app
from autotune.report.check.figures import QUANTITIES
from autotune.report.check.judge import check
from autotune.report.load import read_report

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BASELINE = ROOT / ".github" / "benchmark-baseline.json"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_schema_of_github_workflows_holds(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_workflow_is_found(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-where:"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(broken)]
    assert subprocess.run(command, capture_output=True).returncode == 1


def commands():
    """Every call of autotune in the benchmark job, as words."""
    job = YAML(typ="safe").load(ROOT / ".github" / "workflows" / "benchmark.yml")["jobs"]["benchmark"]
    scripts = [step["run"].replace("\\\n", " ") for step in job["steps"] if "run" in step]
    lines = [shlex.split(line) for script in scripts for line in script.splitlines()]
    return [words[1:] for words in lines if words and words[0].endswith("/autotune")]


def test_the_benchmark_job_calls_what_there_is():
    found = commands()
    assert [words[0] for words in found] == ["run", "check"]
    for name, *arguments in found:
        command = get_command(app).commands[name]
        command.make_context(name, arguments)  # raises where a flag is not known


def test_the_baseline_is_a_report_that_can_be_compared():
    baseline = read_report(BASELINE)
    found = check([baseline], [baseline], 0.3)
    assert found.differences == ()
    assert [row.change for row in found.comparisons] == [0.0] * len(QUANTITIES)  # every figure is there
    assert baseline.environment.hostname is None
