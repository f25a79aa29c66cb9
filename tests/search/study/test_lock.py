"""Two runs on one study: the second is refused while the first lives, and only then."""

import os
import signal
import subprocess
import sys

import pytest

from autotune.errors import DeviceError, InputError
from autotune.search.study.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from autotune.search.study.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_by_name_until_it_is_killed(tmp_path):
    path = tmp_path / "state" / "study.lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(DeviceError, match=rf"another autotune \(process {other.pid}\)") as caught, locked(path):
        pass
    assert "--state-dir" in str(caught.value)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdout.close()
    with locked(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_nothing_is_left_behind(tmp_path):
    with locked(tmp_path / "state" / "study.lock"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_else_is_in_the_folder_stays(tmp_path):
    (tmp_path / "study.db").write_text("")
    with locked(tmp_path / "study.lock"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--state-dir"), locked(tmp_path / "file" / "study.lock"):
        pass
