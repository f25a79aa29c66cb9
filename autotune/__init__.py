"""autotune: measures a pipeline-parallel training job and recommends its number of micro-batches."""

__version__ = "0.1.0"
