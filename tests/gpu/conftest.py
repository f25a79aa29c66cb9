"""What is in this folder needs an NVIDIA GPU; without one it is skipped, with the reason."""

from pathlib import Path

import pytest

from tests.gpu.figures import FIGURES, IS_EMULATED, page


def pytest_collection_modifyitems(items):
    """Marks this folder's tests; pytest hands every collected test to every conftest.py."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if not ours:
        return
    import torch

    for item in ours:
        item.add_marker("gpu")
        needed = item.get_closest_marker("gpus")
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch sees no NVIDIA GPU here"))
        elif needed and torch.cuda.device_count() < needed.args[0]:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed.args[0]} NVIDIA GPUs"))
        elif item.get_closest_marker("speed") and IS_EMULATED:
            item.add_marker(pytest.mark.skip(reason="emulated GPUs have no speed"))


def pytest_terminal_summary(terminalreporter):
    """One page to send to the authors."""
    if not FIGURES:
        return
    terminalreporter.section("what was measured here; please send this page to the authors")
    for line in page():
        terminalreporter.write_line(line)
    counts = (f"{len(terminalreporter.stats.get(kind, []))} {kind}" for kind in ("passed", "failed", "skipped"))
    terminalreporter.write_line(f"{'tests':24} {', '.join(counts)}")
