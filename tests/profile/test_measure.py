"""What a real step tells of the allocator, from answers of ranks that are written here."""

import pytest

from autotune.config import Workload
from autotune.outcome import Failure
from autotune.pipeline.commands import Cut, Prepare, Primed, StageFacts
from autotune.pipeline.ranks import RankFailure
from autotune.profile.measure import FRAGMENTATION, Measurer, reserved_over_allocated

SIZES = {"layers": 4, "hidden": 16, "heads": 2, "seq_len": 8, "vocab": 32, "batch": 8}
WORK = Workload(stages=2, precision="bf16", optimizer="adamw", **SIZES)
FACTS = [StageFacts(layers=1, parameters=1, static_bytes=size, batch_statistics=False) for size in (400, 100, 500, 300)]


def primed(reserved, peak):
    return Primed(peak_memory_bytes=peak, reserved_bytes=reserved, outside_bytes=7)


class WrittenRanks:
    """Answers every command alike, or fails."""

    def __init__(self, answers=(), failure=None):
        self.answers, self.failure, self.asked = answers, failure, []

    def ask(self, command, *_):
        self.asked.append(command)
        if self.failure is not None:
            raise RankFailure(Failure(kind=self.failure, rank=0, message="said here"))
        return [answer.model_dump() for answer in self.answers]


def measurer(ranks):
    """Two stages on each of two ranks: 400 + 500 static bytes on the first, 100 + 300 on the second."""
    return Measurer(ranks, WORK, Cut(virtual_stages=2), (1, 2, 4), False, warn=print)


def test_fragmentation_is_of_what_is_not_static_on_the_rank_where_it_is_most():
    ranks = WrittenRanks((primed(2000, 1900), primed(1300, 1000)))
    assert measurer(ranks).fragmentation(FACTS) == (1300 - 400) / (1000 - 400)
    (plan,) = ranks.asked
    assert isinstance(plan, Prepare)
    assert plan.waits == ()  # its stages compute
    assert (plan.schedule, plan.micro_batches, plan.micro_batch_size) == ("Interleaved1F1B", 4, 1)


def test_where_the_step_does_not_fit_fragmentation_is_assumed():
    assert measurer(WrittenRanks(failure="out_of_memory")).fragmentation(FACTS) == FRAGMENTATION


def test_another_failure_is_not_hidden():
    with pytest.raises(RankFailure):
        measurer(WrittenRanks(failure="crash")).fragmentation(FACTS)


@pytest.mark.parametrize(
    ("answers", "static", "expected"),
    [
        ([primed(None, 1000)], [400], 1.0),
        ([primed(1000, 1000)], [1000], 1.0),
        ([primed(900, 1000)], [400], 1.0),
        ([primed(1060, 1000), primed(1120, 1000)], [400, 400], 1.2),
    ],
    ids=["no allocator to speak of", "nothing but static bytes", "never below one", "the most of all"],
)
def test_the_ratio_is_at_least_one(answers, static, expected):
    assert reserved_over_allocated(answers, static) == expected
