"""A training command as a backend: a visit is a run of it with the candidate's values, ended when enough is timed.

Nothing of a stage is seen, so there is no profile: the search learns from whole steps alone (``plan.fit``).
"""

import os
import platform
import shlex
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autotune.backend.protocol import Paper, ProfileNeeds
from autotune.command.files import Setting
from autotune.command.ports import free_port
from autotune.command.present import command_facts
from autotune.command.template import (
    CUTS,
    check_placeholders,
    environment_of,
    fill,
    names_in,
    says_which,
    values_of,
)
from autotune.command.trial import CommandSpec, Ran, run_shell, run_trial, seconds_limit
from autotune.config import Config
from autotune.disk import refusal
from autotune.errors import UsageError
from autotune.events import Events
from autotune.identity import digest_of_text
from autotune.logs.formats.table import formats_for
from autotune.logs.log import StepShape
from autotune.predict.predict import candidates_for, check_split
from autotune.records.base import not_written
from autotune.records.failure import Failure
from autotune.records.job.command import CommandFacts
from autotune.records.job.environment import COMMAND, Environment
from autotune.records.job.split import Split, show_split
from autotune.records.job.workload import WorkloadConfig, WorkloadFacts
from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile, read_profile
from autotune.schedule_spec import stages_per_rank
from autotune.workload.partition import layers_per_stage

FIRST_STEP_S = 60.0
"""Seconds of a step that are allowed for before any was seen."""
SLOWEST = 8.0
"""How many times longer than any step so far another candidate's may take."""


LEAST_TIMED = 3
"""Steps that are timed of each run at least: beside its start they cost next to nothing."""


@dataclass
class TrainingCommand:
    """Runs of one command. ``folder``: where each trial has a folder of its own."""

    config: Config
    spec: CommandSpec
    folder: Path
    events: Events
    environment: Environment
    training_command: CommandFacts
    prior_profile: Profile | None = None
    busy_s: float = 0.0
    starts_s: list[float] = field(default_factory=list)
    slowest_s: float = 0.0
    is_set_up: bool = False
    is_closed: bool = False
    is_warned: bool = False
    sources: set[str] = field(default_factory=set)

    @property
    def workload(self) -> WorkloadConfig:
        """The training job, of which nothing is known but how it is cut; a model of no size stands for it."""
        return WorkloadConfig(
            layers=self.ranks,
            stages=self.ranks,
            hidden=1,
            heads=1,
            seq_len=1,
            vocab=2,
            batch=self.config.batch,
            precision="fp32",
            optimizer="none",
        )

    @property
    def facts(self) -> WorkloadFacts:
        """What is known of the training job."""
        known = {
            name: getattr(self.config, name) for name in ("layers", "seq_len") if name in self.config.model_fields_set
        }
        return WorkloadFacts(stages=self.ranks, batch=self.config.batch, **known)

    @property
    def depends_on(self) -> Mapping[str, str]:
        """The command and all that is added to it."""
        parts = [*self.spec.words, "|", *self.spec.trial_words, *map(str, self.spec.settings), str(self.spec.prepare)]
        parts += [f"{name}={value}" for name, value in self.fixed.items()]
        return {"command": digest_of_text(shlex.join(parts))}

    @property
    def suffix(self) -> str:
        """The end of the names of profiles: none."""
        return ""

    @property
    def ranks(self) -> int:
        """Number of ranks of the pipeline."""
        return self.config.stages

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a rank may hold, where the user says so."""
        return self.config.memory_limit

    @property
    def fixed(self) -> dict[str, str]:
        """What is the same in all trials and changes what they take, where it is not as usual."""
        config = self.config
        cut = {"split": show_split(config.split)} if config.split else {}
        return cut | ({"data_parallel": str(config.data_parallel)} if config.data_parallel > 1 else {})

    def cut_of(self, candidate: Candidate) -> Split | None:
        """Return the layers of each stage, as given or as even as possible; None where their number is not known."""
        layers, stages = self.facts.layers, self.ranks * candidate.virtual_stages
        return self.config.split or (layers_per_stage(layers, stages) if layers is not None else None)

    def candidates(self) -> tuple[list[Candidate], list[str]]:
        """Return every candidate whose micro-batches divide the batch: launchers refuse others."""
        config, present = self.config, self.training_command.micro_batches
        cuts = (len(config.split) // self.ranks,) if config.split else config.virtual_stages
        found, left_out = candidates_for(
            sorted({*config.all_counts(), *([present] if present else [])}),
            config.schedule,
            cuts,
            self.ranks,
            self.ranks * max(cuts),
            config.batch,
            config.micro_batch_size,
        )
        uneven = sorted({one.micro_batches for one in found if one.padding})
        if uneven:
            counts = ", ".join(map(str, uneven))
            left_out.append(f"not tried: m = {counts}: a launcher takes no m that does not divide the batch")
        return [one for one in found if not one.padding], left_out

    def on_paper(self, needs: Sequence[ProfileNeeds]) -> Paper:
        """Raise UsageError: nothing is known of a command before it runs."""
        raise UsageError("--dry-run: nothing is known of a command's steps before it has run; leave --dry-run out")

    def profile(self, needs: ProfileNeeds, events: Events) -> None:
        """Return None: only whole steps can be timed."""

    def measure(
        self, candidate: Candidate, expected_step_s: float, steps: int, keep_going: KeepGoing
    ) -> Measurement | Failure:
        """Run the command with the candidate's values until enough steady steps are timed, and end it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"m{candidate.micro_batches}-b{candidate.micro_batch_size}-"
        place = Path(tempfile.mkdtemp(prefix=name, dir=self.folder))
        replicas = self.config.data_parallel
        values = values_of(candidate, self.ranks, replicas, free_port(), str(place), self.cut_of(candidate))
        if self.config.setup and not self.is_set_up:
            run_shell(fill(self.config.setup, values), dict(self.spec.environment) | environment_of(values), "setup")
        self.is_set_up = True
        sequences = candidate.sequences * replicas
        tokens = sequences * self.config.seq_len if self.config.seq_len else None
        expected = self.slowest_s * SLOWEST if self.slowest_s else FIRST_STEP_S

        def go_on(number: int, seconds: float) -> bool:
            is_wanted = keep_going(number, seconds)
            return is_wanted or number + 1 < min(LEAST_TIMED, steps)

        ran = run_trial(
            self.spec,
            values,
            place,
            StepShape(sequences, tokens, self.ranks * replicas),
            seconds_limit(expected, self.starts_s, self.spec.start_limit_s),
            steps,
            go_on,
            self.tell_once,
        )
        self.busy_s += ran.wall_s
        return self.outcome(candidate, ran)

    def tell_once(self, text: str) -> None:
        """Warn of a command of which no step is seen, once in a run and not after steps were."""
        if not self.is_warned and not self.starts_s:
            self.is_warned = True
            self.events.warn(text)

    def outcome(self, candidate: Candidate, ran: Ran) -> Measurement | Failure:
        """Return what a trial ended as; of the first one that ran, say how its steps were read."""
        if ran.failure is not None:
            return ran.failure
        self.starts_s.append(ran.start_s)
        self.slowest_s = max(self.slowest_s, *ran.steps)
        watch = ran.watch
        source = watch.seen.source
        if source not in self.sources:
            self.sources.add(source)
            form = f"its log ({watch.lines.form.name})" if source == "log" and watch.lines.form else "the probe"
            self.events.header([f"steps     are timed by {form}; the outputs of trials are in {self.folder}"])
        retries = watch.notes.retries
        return Measurement.of(
            ran.steps,
            candidate.sequences,
            self.config.seq_len,
            peak_memory_bytes=watch.peaks(self.ranks),
            loss=watch.last_loss,
            first_loss=watch.first_loss,
            gradient_norm=watch.first_norm,
            alloc_retries=retries if len(retries) == self.ranks else None,
        )

    def record(self, candidate: Candidate, expected_step_s: float, steps: int) -> None:
        """Return None: the actions of a command's step cannot be seen."""

    def poll(self) -> None:
        """Do nothing: nothing runs between trials."""

    def close(self) -> None:
        """Run the user's cleanup, once, where a trial was made."""
        if self.config.cleanup and self.is_set_up and not self.is_closed:
            run_shell(self.config.cleanup, self.spec.environment, "cleanup")
        self.is_closed = True


def open_command(config: Config, events: Events) -> TrainingCommand:
    """Check the command and what is added to it; start nothing. Raises UsageError where it cannot be run."""
    words = config.command or ()
    settings = tuple(map(Setting.parse, config.set or ()))
    texts = [*words, *(one.value for one in settings), config.prepare or "", config.trial_args or ""]
    check_placeholders(texts)
    check_cut(config, texts)
    if shutil.which(words[0]) is None:
        raise UsageError(f"{words[0]}: there is no such program; give a command after --, as it is typed in a shell")
    if not says_which(texts):
        events.warn(
            "neither {micro_batches} nor {micro_batch_size} is in the command: unless it reads the variables"
            " AUTOTUNE_MICRO_BATCHES or AUTOTUNE_MICRO_BATCH_SIZE, all trials are the same"
        )
    spec = CommandSpec(
        words=words,
        formats=formats_for(config.read),
        trial_words=tuple(shlex.split(config.trial_args or "")),
        settings=settings,
        prepare=config.prepare,
        globs=config.log or (),
        start_limit_s=config.start_limit,
        has_probe=not config.no_probe,
    )
    folder = config.state_dir.absolute() / "trials"
    if config.state_dir.exists() and (refused := refusal(config.state_dir)):
        raise not_written(folder, refused, "--state-dir")
    environment = Environment(
        device=COMMAND,
        cores=os.cpu_count(),
        hostname=socket.gethostname(),
        platform=f"{platform.system()} {platform.machine()}",
        python_version=platform.python_version(),
    )
    present = command_facts(words, settings, config.batch, config.present, config.data_parallel)
    return TrainingCommand(config, spec, folder, events, environment, present, prior_of(config))


def prior_of(config: Config) -> Profile | None:
    """Return the profile that is the prior, where one is given; raise UsageError for one of other ranks or stages."""
    if config.profile is None:
        return None
    profile = read_profile(config.profile)
    if profile.ranks != config.stages:
        raise UsageError(f"--profile: {config.profile} has {profile.ranks} ranks, --stages says {config.stages}")
    cuts = stages_per_rank(config.schedule, config.virtual_stages)
    if cuts != {profile.virtual_stages}:
        asked = " and ".join(map(str, sorted(cuts)))
        raise UsageError(
            f"--profile: {config.profile} has {profile.virtual_stages} stages per rank, the candidates have {asked};"
            " give --schedule and --virtual-stages as in the profile"
        )
    return profile


def check_cut(config: Config, texts: Sequence[str]) -> None:
    """Raise UsageError for a cut that does not reach the command, and for a placeholder of a cut that is not known."""
    asked = sorted(names_in(texts) & set(CUTS))
    for name, is_given in (
        ("split", config.split is not None and not asked),
        ("recompute", config.recompute.value != "none"),
        ("balance", config.balance),
    ):
        if is_given:
            raise UsageError(f"--{name}: a command cuts and keeps its layers itself; say it in the command")
    knows_layers = "layers" in config.model_fields_set
    if asked and config.split is None and not knows_layers:
        raise UsageError(f"{{{asked[0]}}}: nothing says how many layers there are; give --layers or --split")
    if config.split is not None and knows_layers:
        check_split(config.split, config.stages, config.layers)
    if asked and config.split is None:
        deepest = config.stages * max(stages_per_rank(config.schedule, config.virtual_stages))
        if config.layers < deepest:
            raise UsageError(f"--layers: {config.layers} layers cannot be cut into {deepest} stages; give more layers")
