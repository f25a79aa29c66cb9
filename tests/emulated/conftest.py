"""What is in this folder needs emulated GPUs, which ``make test-emulated`` makes; elsewhere it is skipped."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.emulated.machine import IS_EMULATED, Machine

if IS_EMULATED:  # ranks of this process inherit it; before any of them is started
    SESSION = Path(tempfile.mkdtemp(prefix="emulated-cuda-"))
    os.environ["EMULATED_LOG"], os.environ["EMULATED_LEDGER"] = str(SESSION / "cuda.log"), str(SESSION / "ledger")


def pytest_collection_modifyitems(items):
    """Marks this folder's tests; pytest hands every collected test to every conftest.py."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not IS_EMULATED:
            item.add_marker(pytest.mark.skip(reason="needs emulated GPUs: make test-emulated"))


@pytest.fixture
def machines(tmp_path):
    """Makes machines, on which nothing may be misused by the end of the test, and no process may be left."""
    made = []

    def make(**settings):
        folder = tmp_path / f"machine{len(made)}"
        folder.mkdir()
        made.append(Machine(folder, **settings))
        return made[-1]

    yield make
    assert [words for machine in made for words in machine.lines("misuse")] == []


@pytest.fixture
def machine(machines):
    """Has four GPUs of 80 GiB."""
    return machines()


@pytest.fixture(autouse=True)
def nothing_is_misused_in_this_process():
    """Nor by ranks that the test starts without a machine of their own."""
    log = Path(os.environ.get("EMULATED_LOG", os.devnull))
    before = log.stat().st_size if log.exists() else 0
    yield
    said = log.read_text()[before:] if log.is_file() else ""
    assert [line for line in said.splitlines() if line.split(" ", 3)[2] == "misuse"] == []
