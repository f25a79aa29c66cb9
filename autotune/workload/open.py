"""Who builds what a record describes: one row for each kind of workload. What a row names is imported when it is asked
for, so that no rank loads the libraries of another kind."""

from importlib import import_module
from typing import Any

from autotune.records.job.workload import Library, ModelConfig, ModelRequest, WorkloadConfig
from autotune.workload.protocol import Workload

WORKLOADS = {
    None: ("autotune.workload.gpt", "Gpt"),
    Library.CODE: ("autotune.workload.user_model", "UserModel"),
    Library.HUGGING_FACE: ("autotune.workload.hugging_face", "HuggingFace"),
}
"""Module and class of each kind; the built-in GPT comes from no library."""


def open_workload(record: WorkloadConfig | ModelConfig) -> Workload:
    """Return the workload that a record describes."""
    opened: Workload = open_as(record.request.source.library if isinstance(record, ModelConfig) else None, record)
    return opened


def open_as(library: Library | None, record: WorkloadConfig | ModelConfig | ModelRequest) -> Any:
    """Return what the row of ``library`` makes of a record."""
    module, name = WORKLOADS[library]
    return getattr(import_module(module), name)(record)
