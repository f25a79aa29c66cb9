"""What candidates have in common, what they are called, and why one is not tried."""

import pytest

from autotune.records.exclusion import Exclusion, ExclusionReason
from autotune.records.prediction import Candidate
from autotune.records.report import candidate_report
from tests.search.machine import PREDICTIONS


def candidate(m, schedule="1F1B", **more):
    return Candidate(micro_batches=m, micro_batch_size=64 // m, sequences=64, schedule=schedule, **more)


def test_candidates_of_one_curve_differ_in_m_alone():
    assert candidate(4).family == candidate(8).family
    for other in (
        candidate(8, "GPipe"),
        candidate(8, "Interleaved1F1B", virtual_stages=2),
        candidate(8, split=(1, 2, 3, 4)),
    ):
        assert other.family != candidate(8).family


def test_every_field_but_the_sizes_is_a_dimension_of_the_family():
    """A new dimension needs no further word: it is in the family of a candidate and of its row in a report."""
    sizes = {"micro_batches", "micro_batch_size", "sequences", "replicas"}
    assert len(candidate(8).family.rest) == len(Candidate.model_fields.keys() - sizes - {"schedule"})


def test_what_stands_in_where_m_is_too_small_is_of_the_same_curve():
    split = (1, 2, 3, 4)
    assert candidate(8, split=split).family.stand_in == candidate(2, "GPipe", split=split).family
    assert candidate(8).family.stand_in != candidate(2, "GPipe", split=split).family
    assert candidate(8, "GPipe").family.stand_in is None


def test_a_row_of_a_report_is_called_as_its_candidate():
    own = candidate(8, "Interleaved1F1B", virtual_stages=2, split=(1, 2, 3, 4))
    row = candidate_report(own, PREDICTIONS[0], None, None)
    assert (row.candidate, row.family, row.label) == (own, own.family, own.label)
    assert own.label == "m = 8 Interleaved1F1B x2 cut 1,2,3,4"


@pytest.mark.parametrize(
    ("exclusion", "words"),
    [
        (Exclusion(reason=ExclusionReason.MEMORY), "does not fit"),
        (Exclusion(reason=ExclusionReason.BATCH_STATISTICS, least=8), "batch statistics need 8 samples"),
        (
            Exclusion(reason=ExclusionReason.LEANER_RAN_OUT, leaner=candidate(4)),
            "needs as much memory as m = 4 1F1B, which ran out",
        ),
    ],
)
def test_why_a_candidate_is_not_tried_is_said_in_words(exclusion, words):
    assert exclusion.text == words
