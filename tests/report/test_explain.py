"""Why not that m?"""

import pytest

from autotune.errors import UsageError
from autotune.report.explain import explain, per_sequence
from tests.report.export.reports import make_report

REPORT = make_report(failed=[(16, "GPipe")])


def test_the_parts_of_the_answer_are_the_difference():
    text = "\n".join(explain(REPORT, 2))
    assert text.startswith("m = 2 under GPipe: not tried: the search ended before (done); ")
    assert "less throughput than m = 8 under 1F1B (estimated, not run)" in text
    assert "more bubble" in text and "less granularity" in text
    two, eight = (next(row for row in REPORT.candidates if row.micro_batches == count) for count in (2, 8))
    bubble = per_sequence(two)["bubble"] - per_sequence(eight)["bubble"]
    assert f"{bubble * 1e3:.1f} ms more bubble" in text


def test_the_sweet_spot_and_a_failure_are_told_as_such():
    assert "m = 8 under 1F1B is the sweet spot, because fastest." in explain(REPORT, 8)
    assert "m = 16 under GPipe: it failed: no." in explain(REPORT, 16)


def test_an_m_that_was_no_candidate_is_refused_with_those_that_were():
    with pytest.raises(UsageError, match="only m = 1, 2, 4, 6, 8, 16; run again with --micro-batches 32"):
        explain(REPORT, 32)
