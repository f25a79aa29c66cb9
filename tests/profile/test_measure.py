"""What a real step tells of the allocator, from answers of ranks that are written here."""

import json
from dataclasses import replace

import pytest

from autotune.pipeline.control.commands import Prepare, Primed, StageFacts
from autotune.pipeline.control.ranks import RankFailure
from autotune.profile.fragmentation import ASSUMED, SEGMENTS_BYTES, Fragmentation
from autotune.profile.measure import Measurer, is_fault_of_model
from autotune.records.failure import Failure
from autotune.records.job.placement import Placement
from autotune.records.job.workload import Library, ModelConfig, ModelPlace, ModelRequest, WorkloadConfig
from autotune.records.plain import encode

MIB = 2**20
SIZES = {"layers": 4, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": 8}
WORK = WorkloadConfig(stages=2, precision="bf16", optimizer="adamw", **SIZES)
FACTS = [StageFacts(layers=1, parameters=1, static_bytes=size, batch_statistics=False) for size in (400, 100, 500, 300)]


def primed(reserved, peak):
    return Primed(peak_memory_bytes=peak, reserved_bytes=reserved, outside_bytes=7)


class WrittenRanks:
    """Answers every command alike, or fails."""

    device = "cpu"

    def __init__(self, answers=(), failure=None):
        self.answers, self.failure, self.asked = answers, failure, []

    def ask(self, command, *_):
        self.asked.append(command)
        if self.failure is not None:
            raise RankFailure(Failure(kind=self.failure, rank=0, message="said here"))
        return [json.loads(encode(answer)) for answer in self.answers]


def measurer(ranks):
    """Two stages on each of two ranks: 400 + 500 static bytes on the first, 100 + 300 on the second."""
    return Measurer(ranks, WORK, Placement(virtual_stages=2), (1, 2, 4), False, warn=print, output_bytes=0)


def test_fragmentation_is_of_what_is_not_static_on_the_rank_where_it_is_most():
    ranks = WrittenRanks((primed(2_000 * MIB, 1_900 * MIB), primed(1_664 * MIB, 1_000 * MIB)))
    facts = [replace(fact, static_bytes=fact.static_bytes * MIB) for fact in FACTS]
    assert measurer(ranks).fragmentation(facts) == ((1_600 - 400) / (1_000 - 400), SEGMENTS_BYTES)
    (plan,) = ranks.asked
    assert isinstance(plan, Prepare)
    assert plan.replay == ()  # its stages compute
    assert (plan.schedule, plan.micro_batches, plan.micro_batch_size) == ("Interleaved1F1B", 4, 1)


def test_where_the_step_does_not_fit_fragmentation_is_assumed():
    assert measurer(WrittenRanks(failure="out_of_memory")).fragmentation(FACTS) == ASSUMED


def test_another_failure_is_not_hidden():
    with pytest.raises(RankFailure):
        measurer(WrittenRanks(failure="crash")).fragmentation(FACTS)


@pytest.mark.parametrize(
    ("answers", "static", "expected"),
    [
        ([primed(None, 1000)], [400], (1.0, 0)),
        ([primed(1000, 1000)], [1000], (1.0, 0)),
        ([primed(900, 1000)], [400], (1.0, 0)),
        ([primed(30 * MIB, 1000)], [400], (1.0, 30 * MIB - 1000)),
        ([primed(1_000 * MIB, 1_000 * MIB), primed(1_184 * MIB, 1_000 * MIB)], [400 * MIB] * 2, (1.2, SEGMENTS_BYTES)),
    ],
    ids=["no allocator to speak of", "static bytes alone", "never below one", "a tiny model", "the most of all"],
)
def test_segments_explain_what_they_can_and_fragmentation_the_rest(answers, static, expected):
    assert Fragmentation.of(answers, static) == expected


USERS = ModelConfig(
    request=ModelRequest(
        source=ModelPlace(library=Library.CODE, place="mine.py", name="build"),
        stages=2,
        most_stages=2,
        batch=8,
        optimizer="adamw",
        seq_len=8,
    ),
    operations_by_layer=(1.0, 1.0),
    layers=2,
    stages=2,
    batch=8,
    optimizer="adamw",
)


@pytest.mark.parametrize(
    ("workload", "kind", "is_his"),
    [(USERS, "model_error", True), (USERS, "crash", False), (WORK, "model_error", False), (WORK, "crash", False)],
)
def test_only_a_model_of_the_users_is_for_the_user_to_mend(workload, kind, is_his):
    error = RankFailure(Failure(kind=kind, rank=0, message="said here"))
    assert is_fault_of_model(error, workload) == is_his
