"""A host with emulated GPUs, on which tests run commands: its settings, its log, and what others hold of its memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

IS_EMULATED = find_spec("emulated_cuda") is not None
"""Whether this environment's torch sees emulated GPUs; ``make test-emulated`` makes one."""
MIB = 2**20
ROOT = Path(__file__).parents[2]
MODEL = {"layers": 8, "stages": 4, "hidden": 64, "heads": 4, "seq_len": 32, "vocab": 512, "batch": 8}
HOLD = """
import ctypes, sys, time
import torch
torch.cuda.set_device(int(sys.argv[1]))
held = torch.empty(int(sys.argv[2]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(600)
"""


def model(**more: int) -> list[str]:
    """Flags of a model that the CPU computes in no time; ``more``: what is other than in MODEL."""
    sizes = (MODEL | more).items()
    return [word for name, size in sizes for word in (f"--{name.replace('_', '-')}", str(size))]


class Machine:
    """``settings``: of tests/emulated/README.md, without EMULATED_ and in lower case."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder, self.log_file = folder, folder / "cuda.log"
        self.environment = os.environ | {
            "EMULATED_LOG": str(self.log_file),
            "EMULATED_LEDGER": str(folder / "ledger"),
            "NO_COLOR": "1",
            "COLUMNS": "200",
            **{f"EMULATED_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def start(self, *command: object, **more: object) -> subprocess.Popen[str]:
        """Starts a command in the machine's folder; ``more``: further arguments of Popen."""
        words = [sys.executable, *map(str, command)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(words, **{"cwd": self.folder, "env": self.environment, "text": True} | pipes | more)

    def run(self, *command: object, timeout_s: float = 300, environment: dict[str, str] | None = None) -> "Done":
        """Runs a command to its end."""
        process = self.start(*command, env=self.environment | (environment or {}))
        out, err = process.communicate(timeout=timeout_s)
        return Done(process.returncode, out, err)

    def autotune(self, *arguments: object, **more: object) -> "Done":
        """Runs the program."""
        return self.run("-m", "autotune", *arguments, **more)

    @contextmanager
    def hold(self, device: int, bytes_: int) -> Iterator[None]:
        """Meanwhile another process holds so much of a device, and its context."""
        process = self.start("-c", HOLD, device, bytes_)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.kill()
            process.communicate()

    def lines(self, kind: str) -> list[str]:
        """Of the log, each without the process's number and the time; ``kind``: "note" or "misuse"."""
        return [words for _, was, words in self.entries() if was == kind]

    def entries(self) -> list[tuple[int, str, str]]:
        """All of the log: process, kind, words."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        parts = [line.split(" ", 3) for line in lines]
        return [(int(pid), kind, words) for pid, _, kind, words in parts]


class Done:
    """A command that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"
