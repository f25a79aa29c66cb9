"""How a rank came to its end, or why it is silent: what the kernel and the rank itself left behind."""

import os
import signal
from pathlib import Path

from autotune.pipeline.control.activity import Action, last_doing
from autotune.pipeline.hosts.wire import Look
from autotune.records.outcome import Failure, FailureKind

WORDS_LINES, WORDS_CHARACTERS = 5, 500  # of a rank's stderr that are kept
WORDS_BYTES = 2**14  # of its end, in which they are looked for
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> int | None:
    """Return processes of this one's control group that the kernel has killed for want of memory; None where it cannot
    tell.

    Version 2 counts them in memory.events, version 1 in memory.oom_control. Of the whole host (/proc/vmstat) is no use:
    another's processes may be among them.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            file = CONTROL_GROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        elif not controllers:
            file = CONTROL_GROUPS / path.lstrip("/") / "memory.events"
        else:
            continue
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped the process, which only another one would continue."""
    return stat_fields(pid)[:1] == ["T"]


def cpu_seconds(pid: int) -> float:
    """Return seconds of CPU that a process has used; 0 where it has gone."""
    return sum(map(int, stat_fields(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def stat_fields(pid: int) -> list[str]:
    """Return what the kernel tells of a process, from its state on (proc(5), the third field); nothing where it has
    gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def take_look(pid: int, folder: Path, rank: int) -> Look:
    """Return what is to be seen now of the rank whose process this is."""
    doing, lines = last_doing(doing_file(folder, rank)), last_lines(folder, rank)
    return Look(
        cpu_s=cpu_seconds(pid),
        is_stopped=is_stopped(pid),
        action=doing.action if doing else None,
        ahead=doing.ahead if doing else None,
        words=tuple(line[:WORDS_CHARACTERS] for line in lines[-WORDS_LINES:]),
        exception=last_exception(lines),
    )


def death(rank: int, exit_code: int | None, look: Look, was_out_of_memory: bool) -> Failure:
    """Describes a rank that has gone.

    SIGKILL is what the kernel sends when memory runs out, but anyone can send it: it counts as that only where the
    kernel has counted it too.
    """
    if exit_code == -signal.SIGKILL and was_out_of_memory:
        return failure("out_of_memory", rank, "killed by the kernel, which had no memory left", look)
    if exit_code is not None and exit_code < 0:
        return failure("crash", rank, f"killed by signal {-exit_code} ({signal.strsignal(-exit_code)})", look)
    said = look.exception if exit_code == 1 else None  # Python's own status for an exception
    return failure("crash", rank, f"exited with status {exit_code}", look, said)


def silence(looks: dict[int, Look]) -> Failure:
    """Describes ranks that did not answer in time, by rank what is to be seen of them.

    A rank that was stopped is to blame, or the only one that is silent or in the midst of an action.
    """
    stopped = [rank for rank, look in looks.items() if look.is_stopped]
    if stopped:
        return failure("hang", stopped[0], "stopped by a signal", looks[stopped[0]])
    busy = [
        rank
        for rank, look in looks.items()
        if look.action is not None and look.action.stage is not None and not look.action.has_ended
    ]
    for blamed in (list(looks), busy):
        if len(blamed) == 1:
            return failure("hang", blamed[0], "did not answer in time", looks[blamed[0]])
    told = "; ".join(f"rank {rank}: {look.action or 'nothing known'}" for rank, look in looks.items())
    return Failure(kind="hang", message=f"no rank answered in time ({told})")


def failure(kind: FailureKind, rank: int, what: str, look: Look, said: str | None = None) -> Failure:
    """Return a failure of ``rank``, with what it was doing and what it ``said``: its last line where nothing is
    given."""
    action, words = look.action, look.words
    said = said or (words[-1] if words else None)
    return Failure(
        kind=kind,
        rank=rank,
        message=f"{place(rank, action, look.ahead)}: {what};"
        f" {f'last words: {said}' if said else 'it left no last words'}",
        stage=action.stage if action else None,
        action=str(action) if action else None,
        last_words="\n".join(words) or None,
    )


def place(rank: int, action: Action | None, ahead: Action | None = None) -> str:
    """Return ``rank 1, the forward of micro-batch 3 on stage 1``; ``ahead``: to which its CPU has gone on meanwhile."""
    if action is None:
        return f"rank {rank}"
    return f"rank {rank}, {action}" + (f" (its CPU had come to {ahead.words})" if ahead else "")


def last_exception(lines: list[str]) -> str | None:
    """Return the first line of the exception in the last traceback: what CUDA and NCCL write below it is advice."""
    begun = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = lines[begun[-1] + 1 :] if begun else []
    return next((line[:WORDS_CHARACTERS] for line in after if not line.startswith(" ")), None)


def last_lines(folder: Path, rank: int) -> list[str]:
    """Return the end of what a rank wrote to its stderr, without empty lines."""
    try:
        with log_file(folder, rank).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - WORDS_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return []
    return [line.rstrip() for line in lines if line.strip() and not line.startswith("USDT:")]


def log_file(folder: Path, rank: int) -> Path:
    """Return where a rank's stderr goes."""
    return folder / f"rank{rank}.log"


def doing_file(folder: Path, rank: int) -> Path:
    """Return where a rank says what it is doing."""
    return folder / f"rank{rank}.doing"
