"""What links take, from ranks that answer as a written network would."""

import pytest

from autotune.pipeline.control.commands import Exchange, Ping
from autotune.profile.links import measure_links

LATENCY_S = 1e-3
BOTH = [(0, 1), (1, 0)]


class Network:
    """A message takes a millisecond and a second per million bytes; from a thousand bytes on twice as long. With all at
    once, four times as long."""

    def __init__(self):
        self.pinged, self.exchanged = [], []

    @staticmethod
    def seconds(message):
        return LATENCY_S + (2e-6 if message >= 1000 else 1e-6) * (message - 1)

    def ask(self, command):
        if isinstance(command, Ping):
            self.pinged.append((command.source, command.there_bytes))
            trip = self.seconds(command.there_bytes) + self.seconds(command.back_bytes)
            return [[trip, trip, 9.0] if rank == command.source else [] for rank in range(4)]
        assert isinstance(command, Exchange)
        self.exchanged.append(command.links)
        carried = LATENCY_S + 4 * 2e-6 * command.message_bytes
        busy = {rank for link in command.links for rank in link}
        return [[carried] * 3 if rank in busy else [] for rank in range(4)]


def test_each_link_is_timed_at_the_size_of_every_message():
    network = Network()
    there, back = measure_links(network.ask, BOTH, (100, 500, 2000), (), runs_behind=False)
    assert (there.from_, there.to, back.from_, back.to) == (0, 1, 1, 0)
    assert there.times == back.times
    assert [row.bytes for row in there.times] == [100, 500, 2000]
    assert [row.seconds for row in there.times] == pytest.approx(list(map(network.seconds, (100, 500, 2000))))
    assert there.latency_s == pytest.approx(LATENCY_S)
    assert there.bandwidth_bytes_s == pytest.approx(0.5e6, rel=0.01)


def test_of_many_sizes_five_are_timed_and_those_without_bytes_as_one_byte():
    network = Network()
    (link,) = measure_links(network.ask, BOTH[:1], [0, *(2**at for at in range(1, 9))], (), runs_behind=False)
    assert [row.bytes for row in link.times] == [1, 4, 16, 64, 256]
    assert [size for _, size in network.pinged] == [1, 1, 4, 16, 64, 256]


def test_a_message_is_never_faster_than_a_smaller_one():
    trips = {1: 0.002, 100: 0.0015, 200: 0.004, 300: 0.003}  # there and back, of a noisy machine

    def ask(ping):
        return [[trips[ping.there_bytes]], []]

    link = measure_links(ask, BOTH[:1], (100, 200, 300), (), runs_behind=False)[0]
    assert [row.seconds for row in link.times] == pytest.approx([0.001, 0.003, 0.003])


@pytest.mark.parametrize(
    ("hosts", "runs_behind", "measured"),
    [
        ((), False, [False] * 4),
        (("a", "a", "a"), False, [False] * 4),
        (("a", "a", "b"), False, [False, False, True, True]),
        ((), True, [True] * 4),
        (("a", "a", "b"), True, [True] * 4),
    ],
    ids=["one host", "a host with a name", "two hosts", "GPUs of a host", "GPUs of two hosts"],
)
def test_links_that_share_more_than_the_ranks_own_cores_are_measured_together(hosts, runs_behind, measured):
    network = Network()
    pairs = [*BOTH, (1, 2), (2, 1)]
    links = measure_links(network.ask, pairs, (100, 2000), hosts, runs_behind)
    assert network.exchanged == ([tuple(pairs)] if any(measured) else [])
    assert [link.together_bytes_s is not None for link in links] == measured
    for link in links:
        if link.together_bytes_s:
            assert link.together_bytes_s == pytest.approx(1e6 / 8)
            assert link.seconds_together(2000) == pytest.approx(LATENCY_S + 4 * 2e-6 * 2000)


def test_a_single_rank_has_no_links():
    network = Network()
    assert measure_links(network.ask, [], (100,), (), runs_behind=True) == []
    assert network.exchanged == []
