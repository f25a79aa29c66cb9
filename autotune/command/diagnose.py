"""What became of a trial that did not end well, from what it wrote and how it ended."""

import re
import signal
from collections.abc import Sequence

from autotune.logs.text import tidy
from autotune.records.failure import Failure

UNITS = {"MiB": 2**20, "GiB": 2**30, "KiB": 2**10, "bytes": 1, "B": 1, "EB": 10**18}
OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|\b(?:CUDA|HIP|NPU|XPU) out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory"
    r"|NCCL.*out of memory|Cannot allocate memory|\bMemoryError\b",
    re.IGNORECASE,
)
BOGUS = re.compile(r"more than 1EB memory")  # follows a timeout of NCCL, and is none (NVIDIA/nccl issue 1284)
TRIED = re.compile(r"[Tt]ried to allocate ([\d.]+) ?(\w+)")
FREE = re.compile(r"of which ([\d.]+) ?(\w+) is free")
PORT = re.compile(r"address already in use|EADDRINUSE|errno: 98", re.IGNORECASE)
ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*")


def runs_out_of_memory(line: str) -> bool:
    """Return whether a line says that memory ran out."""
    if "memory" not in line.lower() and "ALLOC" not in line:
        return False  # the quick way, for nearly all lines
    return OUT_OF_MEMORY.search(line) is not None and BOGUS.search(line) is None


def out_of_memory(line: str, tail: Sequence[str]) -> Failure:
    """Return the failure that the first such line tells of."""
    plain, rank = tidy(line)
    return Failure(
        kind="out_of_memory", rank=rank, message=shortened(plain), short_bytes=lacking(plain), last_words=words(tail)
    )


def lacking(line: str) -> int | None:
    """Return bytes that were asked for and not free; None where the line does not say."""
    tried, free = TRIED.search(line), FREE.search(line)
    if tried is None or tried[2] not in UNITS:
        return None
    asked = float(tried[1]) * UNITS[tried[2]]
    left = float(free[1]) * UNITS[free[2]] if free and free[2] in UNITS else 0.0
    return max(1, round(asked - left))


def ended(status: int, steps: int, tail: Sequence[str]) -> Failure:
    """Return the failure of a command that ended by itself with ``status`` before it had run the steps wanted."""
    text = "\n".join(tail)
    done = f"after {steps} step{'s' if steps != 1 else ''}" if steps else "before its first step"
    if PORT.search(text):
        return crash(f"a port that the command wanted was in use ({done}); give it {{port}}", tail)
    if status == 0:
        why = "too few to time" if steps else "no step of it was seen"
        return crash(f"the command exited with 0 {done}: {why}; see --read, --log and --trial-args", tail)
    if status < 0:
        name = signal.Signals(-status).name
        perhaps = ": the kernel may have wanted its memory" if name == "SIGKILL" else ""
        return crash(f"the command was killed by {name} {done}{perhaps}", tail)
    reason = last_error(tail)
    return crash(f"the command exited with {status} {done}{f': {reason}' if reason else ''}", tail)


def crash(message: str, tail: Sequence[str]) -> Failure:
    """Return a crash."""
    return Failure(kind="crash", message=message, last_words=words(tail))


def hung(seconds: float, steps: int, tail: Sequence[str]) -> Failure:
    """Return the failure of a command that showed no step for ``seconds``."""
    after = f"after step {steps}" if steps else "before its first step"
    return Failure(kind="hang", message=f"no step for {seconds:.0f} s {after}", last_words=words(tail))


def unseen(seconds: float, tail: Sequence[str]) -> str:
    """Return what is said of a command that shows no step for long, with its last line."""
    last = shortened(tidy(tail[-1])[0]) if tail else ""
    wrote = f"its last line is {last!r}" if last else "it has written nothing"
    return f"no step was seen in {seconds:.0f} s: {wrote}; it may still start, else see --read, --log and --start-limit"


def not_finite(steps: int, tail: Sequence[str]) -> Failure:
    """Return the failure of a command whose loss or gradients are not finite."""
    return Failure(
        kind="model_error", message=f"loss or gradients are not finite in all of {steps} steps", last_words=words(tail)
    )


def last_error(tail: Sequence[str]) -> str | None:
    """Return the last line that looks like an exception."""
    plain = [tidy(line)[0].strip() for line in tail]
    return next((shortened(line) for line in reversed(plain) if ERROR.match(line)), None)


def words(tail: Sequence[str]) -> str | None:
    """Return the last lines of the output."""
    return "\n".join(tail) or None


def shortened(text: str) -> str:
    """Return one line of at most 300 characters."""
    plain = " ".join(text.split())
    return plain if len(plain) <= 300 else f"{plain[:299]}…"
