"""--storage: controllers that share a study in a real PostgreSQL, one of them killed; and passwords, shown nowhere."""

import os
import re
import signal
import subprocess
import sys

import pytest
from optuna.trial import TrialState

from autotune.backend.ranks import TorchRanks
from autotune.config import load_config
from autotune.errors import InputError, UsageError
from autotune.events import Silent
from autotune.pipeline.control.ranks import Ranks
from autotune.records.job.environment import Environment
from autotune.report.load import read_report
from autotune.search.space import params_of
from autotune.search.study.shared import check_storage
from autotune.storage_url import HIDDEN, scrubbed, shown, without_credentials
from autotune.tune import identity_of
from autotune.tuning.job import Job
from tests import postgres
from tests.killing import FLAGS
from tests.search.machine import CANDIDATES

SHARED = [flag for flag in FLAGS if flag != "--quiet"] + ["--heartbeat", "2s"]
SECRETS = ("s3cret%word", "s3cret%25word")


@pytest.fixture
def server():
    with postgres.running() as found:
        yield found


class Controller:
    """A run of its own, with its own ranks, state directory and report."""

    def __init__(self, folder, *more, **environment):
        self.folder = folder
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autotune", "run", *SHARED, *more],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def wait_for(self, sign):
        for line in self.process.stderr:
            self.said += line
            if sign in line:
                return line
        raise AssertionError(f"never said {sign!r}: {self.said}")

    @property
    def name(self):
        return re.search(r"this is its controller (\w+)", self.said)[1]

    def end(self):
        out, err = self.process.communicate(timeout=250)
        self.said += err
        return out + self.said

    def report(self):
        return read_report(self.folder / "report.json")


def freeze_in_a_trial(controller, url):
    """Stops it while it runs a trial, after it has measured some."""
    while True:
        controller.wait_for("first step")
        controller.process.send_signal(signal.SIGSTOP)
        mine = [one for one in postgres.trials(url) if one.user_attrs.get("controller") == controller.name]
        running = [one for one in mine if one.state == TrialState.RUNNING and "measurement" not in one.user_attrs]
        if running and any(one.state == TrialState.COMPLETE for one in mine):
            return running[0]
        controller.process.send_signal(signal.SIGCONT)


def assert_no_secret(folder, *texts):
    """Neither in what was said nor in any file."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for secret in SECRETS:
        assert all(secret not in text for text in texts)
        assert all(secret.encode() not in content for content in files)


@pytest.mark.slow
@postgres.needed
def test_two_controllers_one_killed_no_trial_lost_and_none_run_twice(server, tmp_path):
    url = server.url()
    survivor = Controller(tmp_path / "survivor", "--storage", url)
    victim = Controller(tmp_path / "victim", AUTOTUNE_STORAGE=url)
    broken_off = freeze_in_a_trial(victim, url)
    victim.process.kill()
    victim.end()
    said = survivor.end()
    assert survivor.process.returncode == 0, said

    done = [trial for trial in postgres.trials(url) if trial.state == TrialState.COMPLETE]
    candidates = [tuple(trial.params.values()) for trial in done]
    assert len(candidates) == len(set(candidates)), "a candidate was measured twice"
    by = {name: [one for one in done if one.user_attrs["controller"] == name] for name in (survivor.name, victim.name)}
    assert all(by.values()), "one of them did nothing"
    (again,) = [one for one in done if one.params == broken_off.params]
    assert again.user_attrs["controller"] == survivor.name, "the trial was not handed on"
    assert all(trial.state.is_finished() for trial in postgres.trials(url))

    report = survivor.report()
    assert (report.status, report.search.controller) == ("complete", survivor.name)
    rows = {tuple(params_of(row).values()): row.measurement for row in report.candidates}
    assert {key for key, measurement in rows.items() if measurement} == set(candidates)
    theirs = {tuple(one.params.values()) for one in by[victim.name]}
    assert theirs <= {key for key, measurement in rows.items() if measurement}
    assert {key for key, one in rows.items() if one and one.from_other_controller} <= theirs
    assert all(row.measurement or row.excluded for row in report.candidates)
    assert "more from other controllers" in " ".join(said.split()), said
    assert f"tuner:{HIDDEN}@127.0.0.1" in report.command
    assert_no_secret(tmp_path, said, victim.said)


@pytest.mark.slow
@postgres.needed
def test_a_database_that_goes_away_ends_the_run_in_a_line_and_keeps_what_was_measured(server, tmp_path):
    run = Controller(tmp_path / "run", "--storage", server.url())
    for _ in range(3):
        run.wait_for("first step")
    server.stop()
    said = run.end()
    assert run.process.returncode == 3, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("autotune: the study in postgresql")
    assert "is out of reach" in last
    assert "Traceback" not in said
    report = run.report()
    assert report.status == "partial"
    assert any(row.measurement for row in report.candidates)
    assert_no_secret(tmp_path, said)


@postgres.needed
def test_a_wrong_password_is_one_line_before_anything_is_measured(server, tmp_path):
    run = Controller(tmp_path / "run", "--storage", server.url("wr0ng-word"))
    said = run.end()
    assert run.process.returncode == 3
    (line,) = said.strip().splitlines()
    assert "password authentication failed" in line
    assert "wr0ng-word" not in line


def test_a_server_that_is_not_there_is_one_line():
    pytest.importorskip("psycopg2")
    with pytest.raises(InputError) as found:
        check_storage("postgresql://tuner:s3cret%25word@127.0.0.1:1/x")
    assert "Connection refused" in str(found.value)
    assert "\n" not in str(found.value)
    assert all(secret not in str(found.value) for secret in SECRETS)


def test_what_is_no_sqlite_database_is_one_line(tmp_path):
    (tmp_path / "x.db").write_text("no database, because it has no pages and no header")
    with pytest.raises(InputError, match=r"cannot open the study in sqlite:///.*x\.db: file is not a database"):
        check_storage(f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense://tuner:s3cret%25word@host", "no URL of a database"),
        ("s3cret%25word", "no URL of a database"),
        ("postgresql://tuner:s3cret%25word@host:port/x", "no URL of a database"),
        ("sqlite://", "needs a file"),
        ("mysql://tuner:s3cret%25word@host/x", "needs MySQLdb, which is not installed"),
    ],
)
def test_a_bad_url_is_a_usage_error_that_does_not_repeat_it(url, says, tmp_path):
    with pytest.raises(UsageError, match=f"--storage: .*{says}") as found:
        load_config(None, {"storage": url})
    assert "s3cret" not in str(found.value)
    file = tmp_path / "own.toml"
    file.write_text(f'storage = "{url}"')
    with pytest.raises(InputError, match=says) as found:
        load_config(file, {})
    assert "s3cret" not in str(found.value)


def named(hostname="one", memory=8, **flags):
    """What the study of a run on such a host is called."""
    config = load_config(None, {"layers": 4, "stages": 2, "batch": 8, **flags})
    here = Environment(device="cpu", devices=("Xeon",), hostname=hostname, memory_bytes=memory * 2**30)
    work = config.workload("cpu")
    ranks = TorchRanks(here, work, work, None, Ranks(2, "cpu"), config=config)
    return identity_of(Job(config, ranks, CANDIDATES, Silent())).name


def test_hosts_of_one_kind_share_a_study_only_in_a_database():
    assert named("one") != named("other")
    shared = {"storage": "sqlite:///x.db"}
    assert named("one", **shared) == named("other", **shared)
    assert named("one", **shared) != named("other", memory=16, **shared)


def test_a_config_does_not_show_its_storage():
    config = load_config(None, {"storage": "sqlite:///hushed.db", "heartbeat": "2m"})
    assert "hushed" not in repr(config)
    assert config.heartbeat == 120


def test_a_url_is_shown_without_password_and_parameters():
    assert shown("sqlite:////var/x.db") == "sqlite:////var/x.db"
    assert shown("no URL") == HIDDEN
    pytest.importorskip("psycopg2")
    url = "postgresql://tuner:s3cret%25word@host:5433/x?sslmode=require&password=hunter22"
    assert shown(url) == f"postgresql+psycopg2://tuner:{HIDDEN}@host:5433/x?{HIDDEN}"
    assert scrubbed("s3cret%word s3cret%25word hunter22 tuner", url) == f"{HIDDEN} {HIDDEN} {HIDDEN} tuner"


def test_a_command_is_kept_without_credentials():
    pytest.importorskip("psycopg2")
    url, safe = "postgresql://tuner:s3cret@host/x", f"postgresql+psycopg2://tuner:{HIDDEN}@host/x"
    words = ["autotune", "run", "--storage", url, "--stages", "2", f"--storage={url}", "--storage"]
    assert without_credentials(words) == [
        *("autotune", "run", "--storage", safe, "--stages", "2", f"--storage={safe}", "--storage"),
    ]


def test_a_driver_that_is_missing_is_named():
    """In an interpreter of its own, which finds no psycopg2."""
    program = (
        "import sys; sys.modules['psycopg2'] = None\n"
        "from autotune.cli import main; sys.argv[1:] = ['run', '--storage', 'postgresql://tuner:s3cret@host/x']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "needs psycopg2, which is not installed: pip install 'pipeline-autotune[postgresql]'" in line
    assert "s3cret" not in line
