"""A plan to print: four ranks, made up, as 16 and 64 over a described network."""

from autotune.plan.network import Network
from autotune.plan.scale import Request, scale
from autotune.records.profile import Profile
from autotune.report.paper.scale import with_assumptions

WIRES = {
    "inside": {"latency_s": 1e-5, "bandwidth_bytes_s": 450e9},
    "between": {"latency_s": 2e-5, "bandwidth_bytes_s": 50e9},
}


def document(**more):
    """The profile as JSON."""
    rows = [
        {"micro_batch_size": size, "t_f": 0.002 + 0.01 * size, "t_bw": 0.004 + 0.02 * size} for size in (1, 2, 4, 8, 16)
    ]
    memory = [{"micro_batch_size": size, "activation_bytes": 2**20 * size} for size in (1, 16)]
    stage = {"layers": 12, "time_s": rows, "memory": memory, "static_bytes": 2**28}
    return {
        "schema_version": 1,
        "kind": "autotune.profile",
        "stages": [stage] * 4,
        "workload": {"batch": 64, "seq_len": 128},
        "message_bytes": [{"micro_batch_size": 1, "bytes": 2**24}],
        "drift": 0.01,
        **more,
    }


def make_plan(schedules=("1F1B",), ranks=(16, 64), limit=None, network=(), **more):
    """What ``autotune scale`` makes of it."""
    network = Network.model_validate({"ranks_per_host": 8, "rails": 8, **WIRES, **dict(network)})
    request = Request(ranks, network, schedules, 2, memory_limit=limit)
    return with_assumptions(scale(Profile.model_validate(document(**more)), request))
