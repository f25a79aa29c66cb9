"""What a launcher is: its keys, its words for schedules, what it cannot do, which config files it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from autotune.errors import UsageError
from autotune.records.job.recompute import Recompute, show_modes
from autotune.records.job.split import is_even, show_split
from autotune.report.export.plan import Plan

Settings = dict[str, Any]
"""The launcher's own keys, dotted where they are nested."""
Form = Literal["flags", "overrides", "json", "yaml", "python", "shell"]


@dataclass(frozen=True)
class Target:
    """One launcher.

    ``schedules``: its word for each of torch's schedules that it has. ``settings(plan, word, version)``: its keys.
    ``limit(plan)``: why it cannot run the plan, or None. ``files``: suffixes of config files that hold these keys, and
    ``files_until`` the last version that reads them, where newer ones do not. ``in_code``: what its user must still
    write, in words. ``call``: what the arguments are given to, in Python. ``script``: writes a whole program instead.
    ``recompute``: its keys for what all stages recompute alike.
    """

    name: str
    title: str
    versions: str
    form: Form
    schedules: Mapping[str, str]
    settings: Callable[[Plan, str, str], Settings]
    limit: Callable[[Plan], str | None] = lambda plan: None
    files: tuple[str, ...] = ()
    files_until: str = ""
    in_code: Callable[[Plan], str] = lambda plan: ""
    call: str = ""
    script: Callable[[Plan], str] | None = None
    recompute: Mapping[Recompute, Settings] = field(default_factory=dict)
    default_version: str = ""

    def refusal(self, plan: Plan) -> str | None:
        """Return why the launcher cannot run the plan, or None."""
        if plan.padding:
            rows = plan.replica_batch
            return f"does not pad: m x micro-batch size = {rows}, for {rows - plan.padding} sequences"
        if self.word(plan) is None:
            return f"has no {plan.schedule}, only {', '.join(self.schedules)}"
        return self.limit(plan)

    def file_refusal(self, suffix: str, version: str | None) -> str | None:
        """Return why the launcher reads no config file with that suffix, or None."""
        version = version or self.default_version
        if self.files_until and is_after(version, self.files_until):
            return f"{self.title} {version} takes no config file (--target-version {self.files_until} does)"
        if suffix not in self.files:
            takes = f"a file that ends in {' or '.join(self.files)}" if self.files else "no config file"
            return f"{self.title} takes {takes}"
        return None

    def word(self, plan: Plan) -> str | None:
        """Return the launcher's own name of the plan's schedule."""
        return self.schedules.get(plan.schedule) or self.schedules.get(plan.other_schedule)

    def settings_of(self, plan: Plan, version: str | None) -> Settings:
        """Return the launcher's keys for a plan that it does not refuse."""
        settings = self.settings(plan, self.word(plan) or "", version or self.default_version)
        return settings | (self._told(plan) or {})

    def untold(self, plan: Plan) -> str:
        """Return what the user must say himself of the plan's recomputation; empty where the keys or a script do."""
        if plan.recompute is None or self.script or self._told(plan) is not None:
            return ""
        return f"no key of {self.title} says what was measured, recompute {show_modes(plan.recompute)}: set it in code"

    def cut_text(self, plan: Plan) -> str:
        """Return what the user must know of layers that do not divide, where the launcher cuts them itself."""
        cut = plan.layers_by_stage
        if cut is None or is_even(cut) or self.limit is not own_cut:
            return ""
        return f"{self.title} cuts the layers itself, which may differ from the measured cut {show_split(cut)}"

    def _told(self, plan: Plan) -> Settings | None:
        """The keys for what the plan recomputes; None where there are none."""
        modes = set(plan.recompute or ())
        return self.recompute.get(modes.pop()) if len(modes) == 1 else None


def even_layers(plan: Plan) -> str | None:
    """Return why not where stages have not equally many layers, for a launcher that knows no other cut."""
    cut = plan.layers_by_stage
    if cut is not None and not is_even(cut):
        return f"gives every stage as many layers; it takes no cut such as {show_split(cut)}"
    return None


def own_cut(plan: Plan) -> str | None:
    """Return why not where the cut is no even one, for a launcher that cuts the layers itself."""
    return f"cuts the layers itself; it takes no cut such as {show_split(plan.split)}" if plan.split else None


def is_after(version: str, release: str) -> bool:
    """Return whether a launcher's version is later than a release such as 0.3; raise UsageError for what is no
    version."""
    if version == "main":
        return True
    try:
        return Version(version).release[:2] > Version(release).release
    except InvalidVersion:
        raise UsageError(f"--target-version: give a version such as {release}, or main (given: {version!r})") from None
