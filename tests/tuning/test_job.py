"""What a rank may hold of its device."""

import pytest

from autotune.backend.ranks import memory_limit
from autotune.config import load_config
from autotune.records.job.environment import Environment

GB = 10**9
CARD = Environment(device="cuda", memory_bytes=40 * GB)
HOST = Environment(device="cpu", memory_bytes=64 * GB)


@pytest.mark.parametrize(
    ("environment", "sharing", "given", "limit"),
    [
        (CARD, 1, None, 40 * GB),
        (CARD, 1, "30GB", 30 * GB),
        (CARD, 1, "40GB", 40 * GB),
        (CARD, 1, "80GB", 40 * GB),
        (HOST, 4, None, 16 * GB),
        (HOST, 4, "20GB", 20 * GB),
        (HOST, 4, "1TB", 64 * GB),
        (Environment(device="cpu"), 4, None, None),
        (Environment(device="cpu"), 4, "1GB", GB),
    ],
)
def test_a_rank_may_hold_no_more_than_its_device_has(environment, sharing, given, limit):
    found, notes = memory_limit(load_config(None, {"memory_limit": given}), environment, sharing)
    assert found == limit
    asked = load_config(None, {"memory_limit": given}).memory_limit
    assert bool(notes) == (asked is not None and asked != limit)


def test_a_limit_beyond_the_device_is_said():
    _, (note,) = memory_limit(load_config(None, {"memory_limit": "80GB"}), CARD, 1)
    assert note == (
        "--memory-limit: 74.5 GiB are more than the smallest device has; the limit is 37.3 GiB (40000000000 bytes)"
    )
