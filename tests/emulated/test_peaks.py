"""What torch's caching allocator really held at its peak, against the prediction: under every schedule, on fresh ranks
and on used ones."""

import pytest

from autotune.pipeline.control.commands import MeasureMemory, Prepare
from autotune.pipeline.control.measure import build, describe
from autotune.pipeline.control.ranks import Ranks
from autotune.predict.memory import peak_memory
from autotune.predict.schedules import build_schedule
from autotune.records.job.placement import Placement
from tests.pipeline.test_peak_memory import candidates, measured_profile, workload

WITHIN = 0.02
TIMEOUT_S = 120.0
COUNTS = (2, 4, 16)


def library_bytes(ranks, work):
    """What cuBLAS keeps on each rank: much beside so small a model, so no error may be called small beside that."""
    built = [fact.static_bytes for fact in build(ranks, work, Placement())]
    return [real - paper.static_bytes for real, paper in zip(built, describe(ranks, work, Placement()), strict=True)]


def measured_peaks(ranks, plan):
    return [primed["peak_memory_bytes"] for primed in ranks.ask(plan, TIMEOUT_S)]


@pytest.mark.parametrize("is_fresh", [False, True], ids=["used ranks", "fresh ranks"])
@pytest.mark.parametrize(("vocab", "precision"), [(1024, "fp32"), (64, "bf16")])
def test_every_peak_is_as_predicted(vocab, precision, is_fresh):
    p, off = 2, []
    work = workload(p, vocab, precision)
    with Ranks(p, "cuda") as ranks:
        libraries = library_bytes(ranks, work)
        assert all(share > 2**23 for share in libraries)  # a workspace for forward passes, and one for backward ones
        profiles = {v: measured_profile(ranks, work, v) for v in (1, 2)}
        for candidate in candidates(p):
            plan = Prepare(**candidate.model_dump())
            if is_fresh:
                ranks.start()
            if is_fresh or ranks.placement != plan.placement:
                build(ranks, work, plan.placement)
            name, m, v = candidate.schedule, candidate.micro_batches, candidate.virtual_stages
            peaks = peak_memory(profiles[v], candidate, build_schedule(name, p, m, v))
            for rank, real in enumerate(measured_peaks(ranks, plan)):
                error = (peaks[rank].total - real) / (real - libraries[rank])
                if abs(error) > WITHIN:
                    off.append(f"{error:+.2%} {name}, m = {m}, rank {rank}, at {peaks[rank].moment}")
    assert off == []


def test_the_same_candidate_has_the_same_peak_on_fresh_ranks_and_used_ones():
    work = workload(2, 64, "bf16")
    plans = [Prepare(schedule=s, micro_batches=m, micro_batch_size=16 // m, sequences=16) for s, m in CANDIDATES]
    found = []
    with Ranks(2, "cuda") as ranks:
        for plan in (plans[0], plans[1], plans[0]):
            if not found:
                build(ranks, work, Placement())
            found.append(measured_peaks(ranks, plan))
        ranks.start()
        build(ranks, work, Placement())
        found.append(measured_peaks(ranks, plans[1]))
    first, second, used, fresh = found
    assert (first, second) == (used, fresh)


CANDIDATES = (("1F1B", 4), ("GPipe", 2))


def test_activations_are_the_same_in_every_round():
    """A large vocabulary: what the backward's thread keeps is the gradient of the head's weight."""
    work = workload(2, 4096)
    with Ranks(2, "cuda") as ranks:
        build(ranks, work, Placement())
        command = MeasureMemory(micro_batch_sizes=COUNTS, split=True)
        rounds = [ranks.ask(command, TIMEOUT_S) for _ in range(6)]
    assert all(one == rounds[0] for one in rounds)
