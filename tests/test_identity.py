"""What makes figures comparable: what earlier runs have kept is found again, and everything that matters counts."""

from dataclasses import replace
from pathlib import Path

import pytest

from autotune.backend.command import open_command
from autotune.backend.ranks import TorchRanks
from autotune.config import load_config
from autotune.events import Silent
from autotune.identity import StudyIdentity, changed, changes_of_workload, digest_of_report
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.predict import candidates_for
from autotune.profile.cache import profile_path
from autotune.records.job.environment import Environment
from autotune.tune import identity_of
from autotune.tuning.job import Job
from tests.report.check.reports import report_of

HERE = Environment(
    device="cpu", devices=("Xeon",), cores=2, hostname="one", memory_bytes=8 * 2**30, torch_version="2.13.0"
)
FLAGS = {"layers": 4, "stages": 2, "batch": 8}
WORK = load_config(None, FLAGS).workload("cpu")


def identity(**flags) -> StudyIdentity:
    """What a run with these flags depends on."""
    config = load_config(None, FLAGS | flags)
    ranks = TorchRanks(HERE, WORK, WORK, None, Ranks(2, "cpu"), config=config)
    size, modes = config.micro_batch_size, config.recompute.modes
    candidates, _ = candidates_for((1, 2, 4, 8), ("1F1B",), (1,), 2, 4, 8, size, config.split, modes)
    return identity_of(Job(config, ranks, candidates, Silent()))


def test_what_earlier_versions_have_kept_is_found_again(tmp_path, monkeypatch):
    """The names that they gave: a study that is called anything else is never continued."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("x: 2\n")
    assert identity().name == "4 layers, 2 stages, batch 8, cpu [1cfe255506633cbc]"
    assert profile_path(Path("state"), WORK, HERE, 1) == Path("state/profiles/ca0703929fa7a837.json")
    assert digest_of_report(HERE, WORK, "0.1.0") == "382e4577dab09284"
    assert identity(split="1,3", recompute="full").digest == "210735fbd6646b60"
    assert identity(micro_batch_size=2, recompute="auto").digest == "e696e871122195a6"
    added = {"command": "echo {m}", "set": ["a.yaml:x=1"], "trial_args": "--t"}
    assert open_command(load_config(None, FLAGS | added), Silent()).depends_on == {"command": "cd3694aacabceb66"}


@pytest.mark.parametrize(
    "other",
    [
        {"workload": replace(WORK, hidden=32)},
        {"environment": HERE.model_copy(update={"torch_version": "2.14.0"})},
        {"environment": HERE.model_copy(update={"hostname": "two"})},
        {"search": {"micro_batch_size": None, "schedules": ["1F1B"], "recorded_profile": None}},
        {"search": {"micro_batch_size": None, "schedules": ["1F1B", "GPipe"], "recorded_profile": "a profile"}},
    ],
)
def test_whatever_figures_depend_on_makes_another_study(other):
    mine = identity()
    assert mine.search == {"micro_batch_size": None, "schedules": ["1F1B", "GPipe"], "recorded_profile": None}
    assert replace(mine, **other).digest != mine.digest


def test_hosts_of_one_kind_share_a_study_in_a_database():
    shared = identity(storage="sqlite:///x.db")
    assert shared.environment.hostname is None
    assert shared.digest != identity().digest


def test_a_change_is_told_in_words():
    assert changed({"torch": "2.12.0", "cores": 2}, {"torch": "2.13.0", "cores": 2}) == ["torch was 2.12.0, is 2.13.0"]


def test_figures_of_one_number_of_replicas_are_not_those_of_another():
    """In either direction, and where nobody asks for replicas all digests are as they were."""
    two = load_config(None, FLAGS | {"data_parallel": 2}).workload("cpu")
    assert profile_path(Path("state"), two, HERE, 1) != profile_path(Path("state"), WORK, HERE, 1)
    assert digest_of_report(HERE, two, "0.1.0") != digest_of_report(HERE, WORK, "0.1.0")
    report = report_of()
    other = report.model_copy(update={"workload": replace(report.workload, data_parallel=2)})
    assert changes_of_workload(report, other) == ["data_parallel was 1, is 2"]
    assert changes_of_workload(other, report) == ["data_parallel was 2, is 1"]
    assert changes_of_workload(other, other) == []
