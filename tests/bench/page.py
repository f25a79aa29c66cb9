"""The page of a large report in a real browser: its size, and how long it takes to open."""

import tempfile
import time
from pathlib import Path

from autotune.report.page.page import page
from tests.report.export.reports import make_report
from tests.report.page.browser import CHROMIUM, opened

OPENINGS = 3


def main() -> None:
    """About 200 candidates; two timelines, one of sixteen ranks with 128 micro-batches."""
    if CHROMIUM is None:
        print("there is no Chromium here")
        return
    report = make_report((128, "1F1B"), counts=(*range(1, 104), 128), ranks=16, batch=512)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.html")
        begun = time.monotonic()
        path.write_text(page(report))
        made = time.monotonic() - begun
        seconds = []
        for _ in range(OPENINGS):
            with opened(path) as (_, complaints, took):
                assert not complaints, complaints
                seconds.append(took)
        print(
            f"{len(report.candidates)} candidates: {path.stat().st_size / 1e6:.1f} MB (goal 6), made in {made:.1f} s,"
            f" all plots drawn after {', '.join(f'{one:.2f}' for one in seconds)} s (goal 2)"
        )


if __name__ == "__main__":
    main()
