"""What is in this folder needs an NVIDIA GPU; without one it is skipped, with the reason."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """Marks this folder's tests; pytest hands every collected test to every conftest.py."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if not ours:
        return
    import torch

    for item in ours:
        item.add_marker("gpu")
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch sees no NVIDIA GPU here"))
