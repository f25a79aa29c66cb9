"""The table of faults with what it takes to recover: from the failed trial's end to the next one's first timed step."""

import time
from statistics import median

from autotune.pipeline.control.measure import build, measure_candidate
from autotune.pipeline.control.ranks import Ranks
from autotune.records.failure import Failure
from autotune.records.outcome import Measurement
from tests.pipeline.faults import FAULTS, faulty_rank
from tests.pipeline.test_faults import BAD, GOOD, LIMIT, WORK, P


def main() -> None:
    """Every fault on the first, the middle and the last rank."""
    recoveries = []
    for fault in FAULTS:
        for stage in range(P):
            with Ranks(P, "cpu", faulty_rank(fault, stage, BAD.micro_batch_size), memory_limit=LIMIT) as ranks:
                build(ranks, WORK, BAD.placement)
                begun = time.monotonic()
                outcome = measure_candidate(ranks, WORK, BAD, 0.1, 1, lambda *_: True)
                failed = time.monotonic()
                healthy = measure_candidate(ranks, WORK, GOOD, 0.1, 1, lambda *_: True)
                recovered = time.monotonic()
            assert isinstance(outcome, Failure) and isinstance(healthy, Measurement), (outcome, healthy)
            recoveries.append(recovered - failed)
            print(
                f"{fault:23} stage {stage}: {outcome.kind:13} found after {failed - begun:4.1f} s,"
                f" recovered in {recoveries[-1]:.1f} s: {outcome.message[:110]}",
                flush=True,
            )
    print(f"{len(recoveries)} faults; recovery median {median(recoveries):.1f} s, longest {max(recoveries):.1f} s")


if __name__ == "__main__":
    main()
