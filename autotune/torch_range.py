"""Which versions of torch ranks may have, and what each cannot do. The controller needs none itself.

::

    2.6    PipelineStage is told the shapes of what crosses a boundary, instead of sending a batch to learn them
    2.7    schedules take scale_grads (before, they never divided gradients by m: what we ask for anyway);
           GPipe refuses m < stages, until 2.10
    2.9    DualPipeV
    2.10   step() takes return_outputs (before, the last stage keeps every output until the step ends, and merges them);
           several stages per rank run by a list of actions of their own (before, all ranks go from action to action
           in one beat, and where m < ranks a rank's list is too short to receive all that is sent to it; ZBVZeroBubble,
           and any schedule on one rank, sends from a rank to itself, which gloo refuses); a weight may have a gradient
           of another type than its own
    2.11   GPipe takes any m again

Read in torch/distributed/pipelining (schedules.py, stage.py) and torch/_C/__init__.pyi of the wheels 2.4.1 to 2.14.1.
"""

from collections.abc import Sequence

from packaging.version import InvalidVersion, Version

from autotune.errors import DeviceError, UsageError
from autotune.records.prediction import Candidate
from autotune.schedule_spec import SCHEDULES

OLDEST = (2, 6)
REFUSES_FEW_IN_GPIPE, TAKES_ALL_IN_GPIPE = (2, 7), (2, 11)
RUNS_LISTS = (2, 10)
HAS_GRADIENT_TYPES = (2, 10)

Release = tuple[int, ...]


def release_of(torch_version: str | None) -> Release | None:
    """Return (2, 6) for ``2.6.0a0+ecf3bae40a.nv25.01``; None where the version is not known."""
    try:
        return Version(torch_version or "").release[:2]
    except InvalidVersion:
        return None


def shown(release: Release) -> str:
    """Return ``2.10``."""
    return ".".join(map(str, release))


def check_torch(torch_version: str | None, precision: str) -> None:
    """Raise DeviceError where ranks have a torch that is too old, or too old for weights in ``precision``."""
    release = release_of(torch_version)
    if release is not None and release < OLDEST:
        raise DeviceError(
            f"torch {torch_version} is too old: pipelining is told the shapes of messages in {shown(OLDEST)} and newer;"
            " update torch there, or name another Python with --python"
        )
    if precision != "fp32" and release is not None and release < HAS_GRADIENT_TYPES:
        raise DeviceError(
            f"torch {torch_version} cannot keep the gradients of {precision} weights in fp32, which came with"
            f" {shown(HAS_GRADIENT_TYPES)}; give --precision fp32, or update torch"
        )


def refusal(release: Release, candidate: Candidate, ranks: int) -> str | None:
    """Return why this torch does not run a candidate that newer ones run; None where it does."""
    spec, few = SCHEDULES[candidate.schedule], candidate.micro_batches < ranks
    if release < spec.since:
        return f"{spec.name} runs in torch {shown(spec.since)} and newer"
    if few and spec.runtime == "waits" and REFUSES_FEW_IN_GPIPE <= release < TAKES_ALL_IN_GPIPE:
        return f"{spec.name} with fewer micro-batches than ranks runs in torch {shown(TAKES_ALL_IN_GPIPE)} and newer"
    if (few or ranks == 1) and spec.runtime == "lowered" and release < RUNS_LISTS:
        where = "with fewer micro-batches than ranks" if few else "on a single rank"
        return f"{spec.name} {where} runs in torch {shown(RUNS_LISTS)} and newer"
    return None


def runnable_by(
    torch_version: str | None, candidates: Sequence[Candidate], ranks: int
) -> tuple[list[Candidate], list[str]]:
    """Return the candidates that this torch runs, and in words those that it does not; raise UsageError where none is
    left."""
    release = release_of(torch_version)
    if release is None:
        return list(candidates), []
    refused: dict[str, list[int]] = {}
    left = []
    for candidate in candidates:
        if reason := refusal(release, candidate, ranks):
            refused.setdefault(reason, []).append(candidate.micro_batches)
        else:
            left.append(candidate)
    notes = [
        f"not tried: m = {', '.join(map(str, sorted(set(counts))))}: {reason} (here: {torch_version})"
        for reason, counts in refused.items()
    ]
    if not left:
        raise UsageError("; ".join([*notes, "choose another --schedule, or update torch"]))
    return left, notes
