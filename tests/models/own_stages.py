"""A model that its author cuts: a function of (stage, stages)."""

from torch import Tensor, nn


class Stage(nn.Module):
    def __init__(self, layers: range, first: bool, last: bool, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, dim) if first else None
        self.blocks = nn.ModuleList(nn.Linear(dim, dim) for _ in layers)
        self.head = nn.Linear(dim, 40) if last else None

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is not None:
            x = self.embed(x)
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.head(x) if self.head is not None else x


def build(stage: int, stages: int, layers: int = 8, dim: int = 16) -> Stage:
    each = layers // stages
    return Stage(range(stage * each, (stage + 1) * each), stage == 0, stage == stages - 1, dim)
