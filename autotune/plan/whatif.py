"""What if: the same profile with more stages, another batch, other links, quicker devices or more memory, each over a
range; and which m is best where.

::

    --link 5GB/s,25GB/s,100GB/s --batch 64,256          m that wins

                 5 GB/s   25 GB/s   100 GB/s
    batch  64        8        16         16
    batch 256       32        32         64
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Literal, NamedTuple

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autotune.config import divisors
from autotune.errors import UsageError
from autotune.plan.extrapolate import extrapolate
from autotune.predict.choice import choose
from autotune.predict.predict import candidates_for, predict
from autotune.predict.sweep import memory_per_rank
from autotune.records.base import SCHEMA_VERSION, Record
from autotune.records.prediction import Candidate, Prediction
from autotune.records.profile import Link, Profile, StageProfile
from autotune.schedule_spec import ScheduleName

MOST_CASES = 400


class Case(Record):
    """One set of circumstances; null: as the profile has it."""

    stages: PositiveInt | None = None
    """Ranks of the pipeline."""
    batch: PositiveInt | None = None
    """Sequences per step."""
    link_bytes_s: PositiveFloat | None = None
    """Bytes per second of every link."""
    speed_up: PositiveFloat | None = None
    """How many times as fast devices compute."""
    memory_limit: PositiveInt | None = None
    """Bytes that a rank may hold."""


class Answer(Record):
    """What is best in one case; null where nothing that was timed fits."""

    case: Case
    """The circumstances."""
    micro_batches: PositiveInt | None
    """Best micro-batches per step (m)."""
    micro_batch_size: PositiveInt | None
    """Sequences per micro-batch (b)."""
    schedule: ScheduleName | None
    """Schedule, by torch's name."""
    step_time_s: PositiveFloat | None
    """Predicted seconds of a step."""
    step_time_low_s: PositiveFloat | None
    """Lower end of the 90 % interval, seconds."""
    step_time_high_s: PositiveFloat | None
    """Upper end of the 90 % interval, seconds."""
    throughput_seq_s: PositiveFloat | None
    """Throughput, sequences per second."""
    bubble_fraction: NonNegativeFloat | None
    """Share of p x step time in which devices are idle."""
    peak_memory_bytes: NonNegativeInt | None
    """Bytes of the fullest rank; null where the profile does not tell."""


class WhatIf(Record):
    """Every case that was asked about."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    """Form of the document."""
    kind: Literal["autotune.what-if"] = "autotune.what-if"
    """Which document it is."""
    answers: tuple[Answer, ...]
    """The best of each case."""


class Question(NamedTuple):
    """Ranges; one None where a circumstance is not changed. The rest is what candidates there are."""

    stages: tuple[int | None, ...] = (None,)
    batch: tuple[int | None, ...] = (None,)
    link_bytes_s: tuple[float | None, ...] = (None,)
    speed_up: tuple[float | None, ...] = (None,)
    memory_limit: tuple[int | None, ...] = (None,)

    @property
    def cases(self) -> Iterator[Case]:
        """Every combination."""
        for values in product(*self):
            yield Case.model_validate(dict(zip(self._fields, values, strict=True)))

    @property
    def is_range(self) -> bool:
        """Whether there is more than one case."""
        return any(len(values) > 1 for values in self)


def changed(profile: Profile, case: Case) -> Profile:
    """Return the profile in other circumstances; raise InputError and UsageError where it cannot be stretched."""
    if case.stages is not None and case.stages != profile.ranks:
        links = profile.links
        profile = extrapolate(
            profile, case.stages, profile.virtual_stages, profile.workload.layers or layers_of(profile)
        )
        profile = profile.model_copy(update={"links": alike(links, profile), "shared": None})
    if case.link_bytes_s is not None:
        links = profile.links or alike((), profile)
        new = {"bandwidth_bytes_s": case.link_bytes_s, "together_bytes_s": None, "times": ()}
        profile = profile.model_copy(update={"links": tuple(link.model_copy(update=new) for link in links)})
    if case.speed_up is not None:
        stages = tuple(quicker(stage, case.speed_up) for stage in profile.stages)
        profile = profile.model_copy(update={"stages": stages})
    return profile


def layers_of(profile: Profile) -> int | None:
    """Return the layers of all stages; None where one does not say."""
    counts = [stage.layers for stage in profile.stages]
    return None if None in counts else sum(count or 0 for count in counts)


def alike(links: tuple[Link, ...], profile: Profile) -> tuple[Link, ...]:
    """Return a link in each direction between all neighbours, like the first that was measured."""
    pattern = links[0].model_dump(by_alias=False, exclude={"from_", "to"}) if links else {}
    pairs = [(rank, rank + 1) for rank in range(profile.ranks - 1)]
    both_ways = [pair for one, other in pairs for pair in ((one, other), (other, one))]
    return tuple(Link.model_validate({"from": a, "to": b, **pattern}) for a, b in both_ways)


def quicker(stage: StageProfile, times: float) -> StageProfile:
    """Return the stage on a device that computes so many times as fast; its memory and the CPU stay as they are."""
    rows = []
    for row in stage.time_s:
        new = {
            name: value / times for name in ("t_f", "t_b", "t_w", "t_bw") if (value := getattr(row, name)) is not None
        }
        samples: dict[str, Any] = {
            name: tuple(value / times for value in getattr(row, name))
            for name in ("samples_f", "samples_b", "samples_w", "samples_bw")
        }
        rows.append(replace(row, **new, **samples))
    return stage.model_copy(update={"time_s": tuple(rows), "optimizer_s": stage.optimizer_s / times})


def ask(
    profile: Profile, question: Question, counts: tuple[int, ...] | None, names: tuple[ScheduleName, ...]
) -> WhatIf:
    """Return the best of every case. ``counts``: the m to try; None: every divisor of the batch."""
    cases = list(question.cases)
    if len(cases) > MOST_CASES:
        raise UsageError(f"what-if: {len(cases)} cases are too many, at most {MOST_CASES}; give shorter ranges")
    return WhatIf(answers=tuple(answer(profile, case, counts, names) for case in cases))


def answer(profile: Profile, case: Case, counts: tuple[int, ...] | None, names: tuple[ScheduleName, ...]) -> Answer:
    """Return the best of one case."""
    paper = changed(profile, case)
    batch = case.batch or paper.workload.batch or 1
    wanted = [m for m in counts or divisors(batch) if m <= batch]
    v, stages, replicas = paper.virtual_stages, len(paper.stages), paper.workload.replicas
    found, _ = candidates_for(wanted, names, (v,), paper.ranks, stages, batch, replicas=replicas)
    limit = case.memory_limit or memory_per_rank(paper)
    pairs: list[tuple[Candidate, Prediction]] = [(one, predict(paper, one, limit)) for one in found]
    pick = choose(pairs).pick
    if pick is None:
        names_of_none = [name for name in Answer.model_fields if name != "case"]
        return Answer(case=case, **dict.fromkeys(names_of_none))
    candidate, prediction = pairs[pick]
    return Answer(
        case=case,
        **candidate.model_dump(include={"micro_batches", "micro_batch_size", "schedule"}),
        **prediction.model_dump(
            include={"step_time_s", "step_time_low_s", "step_time_high_s", "throughput_seq_s", "bubble_fraction"}
        ),
        peak_memory_bytes=max(prediction.peak_memory_bytes) if prediction.peak_memory_bytes else None,
    )
