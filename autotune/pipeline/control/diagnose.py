"""Why a rank exited, or does not answer: from what the kernel and the rank itself left behind."""

import os
import signal
from pathlib import Path

from autotune.pipeline.control.activity import Action, last_activity
from autotune.pipeline.hosts.wire import Assignment, ProcessStatus
from autotune.records.failure import Failure, FailureKind

TAIL_LINES, TAIL_CHARACTERS = 5, 500  # of a rank's stderr that are kept
TAIL_BYTES = 2**14  # of its end, in which they are looked for
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> int | None:
    """Return how many processes of this one's control group the kernel has killed because memory ran out; None where
    it does not count them.

    Version 2 counts them in memory.events, version 1 in memory.oom_control. The count of the whole host (/proc/vmstat)
    would include other people's processes.
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


def process_status(pid: int, folder: Path, rank: int) -> ProcessStatus:
    """Return the present status of the rank whose process this is."""
    activity, lines = last_activity(activity_file(folder, rank)), last_lines(folder, rank)
    return ProcessStatus(
        cpu_s=cpu_seconds(pid),
        is_stopped=is_stopped(pid),
        action=activity.action if activity else None,
        ahead=activity.ahead if activity else None,
        stderr_tail=tuple(line[:TAIL_CHARACTERS] for line in lines[-TAIL_LINES:]),
        exception=last_exception(lines),
    )


def diagnose_exit(who: Assignment, exit_code: int | None, status: ProcessStatus, was_out_of_memory: bool) -> Failure:
    """Describe a rank that has exited.

    SIGKILL is what the kernel sends when memory runs out, but anyone can send it: it counts as that only where the
    kernel has counted it too.
    """
    if exit_code == -signal.SIGKILL and was_out_of_memory:
        return failure("out_of_memory", who, "killed by the kernel, which had no memory left", status)
    if exit_code is not None and exit_code < 0:
        return failure("crash", who, f"killed by signal {-exit_code} ({signal.strsignal(-exit_code)})", status)
    said = status.exception if exit_code == 1 else None  # Python's own status for an exception
    return failure("crash", who, f"exited with status {exit_code}", status, said)


def diagnose_timeout(statuses: dict[Assignment, ProcessStatus]) -> Failure:
    """Describe ranks that did not answer in time, from the status of each.

    A rank that was stopped is to blame, or the only one that is silent or in the midst of an action.
    """
    stopped = [who for who, status in statuses.items() if status.is_stopped]
    if stopped:
        return failure("hang", stopped[0], "stopped by a signal", statuses[stopped[0]])
    busy = [
        who
        for who, status in statuses.items()
        if status.action is not None and status.action.stage is not None and not status.action.has_ended
    ]
    for blamed in (list(statuses), busy):
        if len(blamed) == 1:
            return failure("hang", blamed[0], "did not answer in time", statuses[blamed[0]])
    actions = "; ".join(f"{who.name}: {status.action or 'nothing known'}" for who, status in statuses.items())
    return Failure(kind="hang", message=f"no rank answered in time ({actions})")


def failure(kind: FailureKind, who: Assignment, what: str, status: ProcessStatus, said: str | None = None) -> Failure:
    """Return a failure of a rank, with its action and what it ``said``: its last line where nothing is given."""
    action, tail = status.action, status.stderr_tail
    said = said or (tail[-1] if tail else None)
    return Failure(
        kind=kind,
        rank=who.rank,
        message=f"{place(who.name, action, status.ahead)}: {what};"
        f" {f'last words: {said}' if said else 'it left no last words'}",
        stage=action.stage if action else None,
        action=str(action) if action else None,
        last_words="\n".join(tail) or None,
    )


def place(name: str, action: Action | None, ahead: Action | None = None) -> str:
    """Return ``rank 1, the forward of micro-batch 3 on stage 1``, where ``name`` is that of the rank; ``ahead``: the
    action that its CPU has come to meanwhile."""
    if action is None:
        return name
    return f"{name}, {action}" + (f" (its CPU had come to {ahead.phrase})" if ahead else "")


def last_exception(lines: list[str]) -> str | None:
    """Return the first line of the exception in the last traceback: what CUDA and NCCL write below it is advice."""
    begun = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = lines[begun[-1] + 1 :] if begun else []
    return next((line[:TAIL_CHARACTERS] for line in after if not line.startswith(" ")), None)


def last_lines(folder: Path, rank: int) -> list[str]:
    """Return the end of what a rank wrote to its stderr, without empty lines."""
    try:
        with log_file(folder, rank).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return []
    return [line.rstrip() for line in lines if line.strip() and not line.startswith("USDT:")]


def log_file(folder: Path, rank: int) -> Path:
    """Return where a rank's stderr goes."""
    return folder / f"rank{rank}.log"


def activity_file(folder: Path, rank: int) -> Path:
    """Return the file in which a rank says what it is doing."""
    return folder / f"rank{rank}.activity"
