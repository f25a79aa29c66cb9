"""``autotune run --layers 48 --stages 4`` on GPUs: the default workload fits, and shows what m trades.

The bytes are from fake tensors, put through the memory model of every run; ``python -m tests.bench defaults`` prints
them all.
"""

from pathlib import Path

import pytest

from autotune.config import Config, load_config
from tests.bench.defaults import GB, MACHINES, best, memory_on_paper, rows, workload

A100_80, A100_40, H100_80 = MACHINES
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def fitting(machine, schedule):
    """Every m with which the schedule fits."""
    return tuple(m for name, m in (row.told for row in rows(machine) if row.prediction.fits) if name == schedule)


def test_the_scenario_of_the_source_document_is_the_default():
    assert load_config(Path("a100"), {}).workload("cuda") == workload(4) == Config().workload("cuda")
    assert (workload(4).layers, workload(4).batch, workload(4).precision) == (48, 64, "bf16")
    assert Config().counts() == COUNTS


@pytest.mark.slow
def test_on_cards_of_80_gb_every_divisor_from_the_number_of_stages_up_fits_under_1f1b():
    assert fitting(A100_80, "1F1B") == COUNTS[2:]
    tightest = max(row.most for row in rows(A100_80) if row.prediction.fits)
    assert 0.8 * A100_80.memory_bytes < tightest < 0.95 * A100_80.memory_bytes  # the card is used, and not to its rim


def test_gpipe_hits_the_memory_wall_where_1f1b_does_not():
    assert fitting(A100_80, "GPipe") == ()
    assert fitting(H100_80, "GPipe") == COUNTS[1:]  # six layers a stage; m = 1 holds all logits at once, several times
    least = min(row.most for row in rows(A100_80) if row.candidate.schedule == "GPipe")
    assert least > 1.1 * A100_80.memory_bytes


def test_on_cards_of_40_gb_the_smallest_m_does_not_fit_and_the_rule_of_thumb_does():
    assert fitting(A100_40, "1F1B") == (16, 32, 64)


def test_on_eight_devices_every_m_of_1f1b_fits():
    assert fitting(H100_80, "1F1B") == COUNTS[3:]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_only_measuring_tells_the_sweet_spot(machine):
    """With a published throughput against the micro-batch size it is inside the range, with the next larger or smaller
    m closer than a prediction is sure; on a device without losses at small micro-batches the largest m wins."""
    speed = {row.told: row.prediction.throughput_seq_s for row in rows(machine) if row.prediction.fits}
    name, m = best(machine).told
    assert machine.devices < m < COUNTS[-1]
    assert max(speed[name, 2 * m], speed.get((name, m // 2), 0.0)) > 0.95 * speed[name, m]
    assert best(machine, is_flat=True).told == (name, COUNTS[-1]) != (name, 4 * machine.devices)


def test_the_model_is_as_large_as_its_comments_say():
    found = {row.candidate.micro_batches: row for row in rows(A100_80) if row.candidate.schedule == "1F1B"}
    static = sum(split.static for split in found[4].prediction.memory_split_bytes)
    assert static == pytest.approx(47 * GB, rel=0.01)
    of_sequence = [stage[0].activation_bytes for stage in memory_on_paper(4, COUNTS)]
    assert of_sequence[0] == pytest.approx(0.8 * GB, rel=0.02)
    assert 64 * sum(of_sequence) == pytest.approx(227 * GB, rel=0.01)
