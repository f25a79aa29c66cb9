"""``python -m tests.fuzz [INPUTS]``: so many (100,000) are shared among the parsers; any crash ends it with exit 1."""

import resource
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.parsers import Parser, attempt, inputs, parsers

INPUTS = 100_000
SLOWEST_S = 5.0
MEMORY_BYTES = 2**30  # beyond what is held at the start


def fuzz(parser: Parser, count: int, path: Path) -> tuple[int, int, float]:
    """Inputs tried, how many of them were valid, seconds of the slowest."""
    tried = valid = 0
    slowest = 0.0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(parser))
    def run(content: bytes) -> None:
        nonlocal tried, valid, slowest
        begun = time.monotonic()
        valid += attempt(parser, content, path)
        tried += 1
        took = time.monotonic() - begun
        assert took < SLOWEST_S, f"took {took:.1f} s"
        slowest = max(slowest, took)

    run()
    return tried, valid, slowest


def main() -> None:
    """Every parser in turn."""
    known = parsers()
    each = -(-(int(sys.argv[1]) if len(sys.argv) > 1 else INPUTS) // len(known))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, resource.RLIM_INFINITY))
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, parser in known.items():
            begun = time.monotonic()
            tried, valid, slowest = fuzz(parser, each, Path(folder, "input"))
            total += tried
            seconds = time.monotonic() - begun
            print(
                f"{name:15}{tried:7,} inputs, {valid:6,} of them valid, no crash;"
                f" slowest {slowest:.2f} s, all {seconds:.0f} s",
                flush=True,
            )
    print(f"{total:,} inputs")


if __name__ == "__main__":
    main()
