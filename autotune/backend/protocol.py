"""What runs candidates, as the rest of autotune sees it. Nothing outside this folder knows whether ranks compute,
replay what was recorded, or are simulated."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from autotune.events import Events
from autotune.pipeline.control.commands import StepTimes
from autotune.records.failure import Failure
from autotune.records.forecast import ForecastBasis
from autotune.records.job.command import CommandFacts
from autotune.records.job.environment import Environment
from autotune.records.job.recompute import Recompute
from autotune.records.job.workload import AnyWorkload, WorkloadFacts
from autotune.records.outcome import KeepGoing, Measurement
from autotune.records.prediction import Candidate
from autotune.records.profile import Profile
from autotune.schedule_spec import SCHEDULES

RecordedSteps = Sequence[Sequence[StepTimes]]
"""Steps with all their actions, by step and rank."""


class ProfileNeeds(NamedTuple):
    """What predictions need of one profile: ``virtual_stages`` on each rank, micro-batch ``sizes``, ascending, whether
    some schedule runs the backward in two halves, and what all stages recompute."""

    virtual_stages: int
    sizes: tuple[int, ...]
    is_split: bool
    recompute: Recompute = Recompute.NONE


def needs_of(candidates: Sequence[Candidate]) -> list[ProfileNeeds]:
    """Return what profiles the predictions of all candidates need, one for every number of stages per rank and all
    that some stage recomputes, ascending."""
    needs = []
    for cut, mode in sorted({(one.virtual_stages, mode) for one in candidates for mode in modes_in(one)}):
        of_cut = [one for one in candidates if one.virtual_stages == cut and mode in modes_in(one)]
        sizes = tuple(sorted({candidate.micro_batch_size for candidate in of_cut}))
        is_split = any(SCHEDULES[one.schedule].backward == "split" for one in of_cut)
        needs.append(ProfileNeeds(cut, sizes, is_split, mode))
    return needs


def modes_in(candidate: Candidate) -> set[Recompute]:
    """Return what its stages recompute."""
    return set(candidate.recompute or (Recompute.NONE,))


class Profiled(NamedTuple):
    """A profile, and whether an earlier run had measured it."""

    profile: Profile
    is_earlier: bool = False


class Paper(NamedTuple):
    """What is known of stages before anything runs: a profile for each of the needs, and where they are from."""

    profiles: Sequence[Profile]
    basis: ForecastBasis


class Backend(Protocol):
    """What runs candidates, and says what they are run on."""

    @property
    def environment(self) -> Environment:
        """The machine that figures are measured on, as reports state it."""

    @property
    def workload(self) -> AnyWorkload:
        """The training job that really runs here."""

    @property
    def facts(self) -> WorkloadFacts:
        """The training job that figures are of, as reports state it."""

    @property
    def depends_on(self) -> Mapping[str, str]:
        """What figures depend on beside the workload and the environment, by name."""

    @property
    def training_command(self) -> CommandFacts | None:
        """What is known of the user's own command; None where there is none."""

    @property
    def prior_profile(self) -> Profile | None:
        """What the user expects stages to cost that cannot be timed; None where nothing is expected, or they can."""

    @property
    def suffix(self) -> str:
        """The end of the names of the profiles that a run writes; empty where they are of the devices here."""

    @property
    def ranks(self) -> int:
        """Devices of one pipeline, which work at the same time; ``facts.replicas`` times as many in all."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a rank may hold of its device; None where not known."""

    @property
    def busy_s(self) -> float:
        """Seconds in which the devices worked so far."""

    def candidates(self) -> tuple[list[Candidate], list[str]]:
        """Return what may be tried, in the order of m, and in words what the user should know of what may not."""

    def on_paper(self, needs: Sequence[ProfileNeeds]) -> Paper:
        """Return what is known of stages without running them."""

    def profile(self, needs: ProfileNeeds, events: Events) -> Profiled | None:
        """Return what stages cost, measured; None where nothing but whole steps can be timed.

        Raises MemoryLimitError where there is no memory for it, DeviceError where it cannot be measured.
        """

    def measure(
        self, candidate: Candidate, expected_step_s: float, steps: int, keep_going: KeepGoing
    ) -> Measurement | Failure:
        """Run one untimed step of a candidate and then up to ``steps`` timed ones, as long as ``keep_going`` says.

        Raises DeviceError where no candidate is to blame for what goes wrong.
        """

    def record(self, candidate: Candidate, expected_step_s: float, steps: int) -> RecordedSteps | Failure | None:
        """Record some steps of a candidate with all their actions; None where actions cannot be seen."""

    def poll(self) -> None:
        """Do what is due now and then while nothing runs."""

    def close(self) -> None:
        """End everything that runs, and let go of it; may be called again."""
