"""A config of a user's for torchtitan 0.3: its own sections, without the model and the data that it would load."""

from dataclasses import dataclass, field

from torchtitan.config import ParallelismConfig, TrainingConfig


@dataclass
class Mine:
    training: TrainingConfig = field(default_factory=TrainingConfig)
    parallelism: ParallelismConfig = field(default_factory=ParallelismConfig)
    hf_assets_path: str = "."


def mine() -> Mine:
    """What ``--config mine`` asks for."""
    return Mine()
