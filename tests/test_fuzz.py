"""A short run of the fuzzer; ``make fuzz`` is the long one."""

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.parsers import parsers

PARSERS = parsers()


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.slow
def test_any_bytes_give_a_record_or_one_clear_line(name, tmp_path):
    parser = PARSERS[name]
    tried, valid, _ = fuzz(parser, 150, tmp_path / "input")
    assert tried >= 150
    assert valid < tried
