"""One trial of a command: started, read, ended as soon as no more steps are wanted, and nothing of it left behind."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import autotune.probe
from autotune.command import diagnose
from autotune.command.files import Setting, copies, with_copies
from autotune.command.output import Output
from autotune.command.processes import LOOK_S, end
from autotune.command.template import environment_of, fill
from autotune.command.watch import Watch, first_timed, timed_at_last
from autotune.errors import DeviceError
from autotune.logs.formats.spec import LogFormat
from autotune.logs.log import Log, StepShape
from autotune.logs.noted import Notes
from autotune.records.failure import Failure
from autotune.records.outcome import KeepGoing

LAST_WORDS_S = 1.0
"""After a line that says memory ran out, so long the rest of the message may come."""
BROKEN_AT_MOST = 5
"""Steps in a row, all not finite, after which a command is ended."""
PYTHONPATH = "PYTHONPATH"


@dataclass(frozen=True)
class CommandSpec:
    """The user's command. ``trial_words`` are added to it in trials; ``settings`` change copies of its files;
    ``prepare``, a shell command, runs before each trial. ``globs``: logs that it writes. ``start_limit_s``: how long
    its first step may take to come."""

    words: tuple[str, ...]
    formats: tuple[LogFormat, ...]
    trial_words: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    prepare: str | None = None
    globs: tuple[str, ...] = ()
    start_limit_s: float = 600.0
    has_probe: bool = True
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class StepLimit(NamedTuple):
    """How long to wait for the first step, and for each further one, before a command counts as hanging; and how long
    for the first before it is said that none was seen."""

    start_s: float
    step_s: float
    told_s: float = 60.0


def ignore(_: str) -> None:
    """Tell nobody."""


class Ran(NamedTuple):
    """A trial that was made: the timed steps, or the failure; what was watched; seconds until the first step, and of
    the whole."""

    steps: tuple[float, ...]
    failure: Failure | None
    watch: Watch
    start_s: float
    wall_s: float


def environment_for(spec: CommandSpec, values: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the variables of a trial: the user's own, the values, and where the probe notes steps."""
    made = dict(spec.environment) | environment_of(values)
    made |= {"AUTOTUNE_TRIAL_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
    if spec.has_probe:
        site = str(Path(autotune.probe.__file__).parent / "site")
        made[PYTHONPATH] = os.pathsep.join([site, *filter(None, [made.get(PYTHONPATH)])])
    else:
        made["AUTOTUNE_PROBE"] = "off"
    return made


def run_shell(command: str, environment: Mapping[str, str], what: str) -> None:
    """Run a shell command of the user's to its end; raise DeviceError where it fails."""
    done = subprocess.run(
        command, shell=True, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it wrote nothing"]
        raise DeviceError(f"--{what} exited with {done.returncode}: {last[0]}; mend {command!r}")


def run_trial(
    spec: CommandSpec,
    values: Mapping[str, str],
    folder: Path,
    shape: StepShape,
    limit: StepLimit,
    steps: int,
    keep_going: KeepGoing,
    tell: Callable[[str], None] = ignore,
) -> Ran:
    """Run the command with ``values`` until it has timed as many steps as are wanted, and end all of it. ``tell``:
    called once with what it writes, where no step is seen for long."""
    environment = environment_for(spec, values, folder)
    if spec.prepare:
        run_shell(fill(spec.prepare, values), environment, "prepare")
    made = copies(spec.settings, values, folder / "files")
    words = with_copies([fill(word, values) for word in (*spec.words, *spec.trial_words)], made)
    watch = Watch(Log(spec.formats), Notes(folder), shape)
    begun = time.monotonic()
    try:
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        failure = diagnose.crash(f"{words[0]} could not be started: {error.strerror}", ())
        return Ran((), failure, watch, 0.0, 0.0)
    assert process.stdout is not None
    output = Output(process.stdout.fileno(), folder / "output.log", spec.globs)
    session = _Session(process, output, watch, limit, steps, keep_going, tell, begun)
    try:
        session.run()
    finally:
        left = end(str(folder), process.pid)
        process.wait()
        process.stdout.close()
        output.close()
    if left:
        raise DeviceError(f"processes {', '.join(map(str, left))} of a trial do not end: end them, and run again")
    return Ran(session.timed, session.failure, watch, session.start_s, time.monotonic() - begun)


@dataclass
class _Session:
    """The loop that reads a running command."""

    process: "subprocess.Popen[bytes]"
    output: Output
    watch: Watch
    limit: StepLimit
    steps: int
    keep_going: KeepGoing
    tell: Callable[[str], None]
    begun: float
    timed: tuple[float, ...] = ()
    failure: Failure | None = None
    start_s: float = 0.0
    first: int | None = None
    told: int = 0  # steps that were reported
    is_told: bool = False  # that no step was seen

    def run(self) -> None:
        """Read until enough is known, or the command ends, fails or hangs."""
        seen, moment = 0, self.begun
        while self.failure is None:
            has_ended = self.process.poll() is not None
            if line := self._read():
                self._fail_for_memory(line)
                return
            if self.watch.steps > seen:
                seen, moment = self.watch.steps, time.monotonic()
                self.start_s = self.start_s or moment - self.begun
                if not self._report():
                    return
            if has_ended:
                self._conclude(self.process.returncode)
                return
            waited = time.monotonic() - moment
            if not seen and not self.is_told and waited > self.limit.told_s:
                self.is_told = True
                self.tell(diagnose.unseen(waited, self.output.tail))
            if waited > (self.limit.step_s if seen else self.limit.start_s):
                self.failure = diagnose.hung(waited, seen, self.output.tail)
            self.output.wait(LOOK_S)

    def _read(self) -> str | None:
        """Take in what has arrived; return the first line that says that memory ran out."""
        told = None
        for line in self.output.look():
            self.watch.lines.feed(line, time.monotonic())
            if told is None and diagnose.runs_out_of_memory(line):
                told = line
        self.watch.notes.look()
        return told

    def _fail_for_memory(self, line: str) -> None:
        time.sleep(LAST_WORDS_S)
        self._read()
        self.failure = diagnose.out_of_memory(line, self.output.tail)

    def _report(self) -> bool:
        """Report steps that are new and steady; return whether more are wanted."""
        if self.watch.is_broken and self.watch.steps >= BROKEN_AT_MOST:
            self.failure = diagnose.not_finite(self.watch.steps, self.output.tail)
            return False
        seconds = self.watch.seen.seconds
        if self.first is None:
            self.first = first_timed(seconds)
        if self.first is None:
            return True
        self.timed = tuple(seconds[self.first :])[: self.steps]
        for number in range(self.told, len(self.timed)):
            self.told = number + 1
            if not self.keep_going(number, self.timed[number]) or self.told >= self.steps:
                self.timed = self.timed[: self.told]
                return False
        return True

    def _conclude(self, status: int) -> None:
        """Settle what a command that ended by itself has shown."""
        time.sleep(LOOK_S)
        if line := self._read():
            self._fail_for_memory(line)
            return
        if self.watch.is_broken:
            self.failure = diagnose.not_finite(self.watch.steps, self.output.tail)
            return
        timed = timed_at_last(self.watch.seen.seconds, self.first)[: self.steps]
        if status != 0 or not timed:
            self.failure = diagnose.ended(status, self.watch.steps, self.output.tail)
            return
        for number in range(self.told, len(timed)):
            self.keep_going(number, timed[number])
        self.timed = timed


def seconds_limit(expected_s: float, starts_s: Sequence[float], start_limit_s: float) -> StepLimit:
    """Return how long a trial may be silent: for its first step as long as the user allows, or three times as long as
    the slowest start so far; then ten times a step that is expected."""
    start = max(30.0, 3 * max(starts_s)) + 10 * expected_s if starts_s else start_limit_s
    return StepLimit(min(start, start_limit_s), max(10.0, 10 * expected_s))
