"""An encoder whose layers all need a mask, which comes as a keyword argument; padding is not attended to."""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, layers: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(50, dim), nn.Parameter(torch.randn(16, dim) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=dropout, batch_first=True) for _ in range(layers)
        )
        self.classify = nn.Linear(dim, 3)

    def forward(self, ids: Tensor, *, mask: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        x = self.embed(ids) * scale + self.positions[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=mask)
        kept = (~mask).unsqueeze(-1)
        return {"classes": self.classify((x * kept).sum(1) / kept.sum(1))}


def build(layers: int = 5, dim: int = 32, dropout: float = 0.0) -> Encoder:
    return Encoder(layers, dim, dropout)


def example_batch(batch_size: int):
    lengths = torch.randint(4, 17, (batch_size, 1))
    mask = torch.arange(16) >= lengths
    return (torch.randint(50, (batch_size, 16)),), {"mask": mask, "scale": 2.0}, torch.randint(3, (batch_size,))


def loss(output: dict[str, Tensor], target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output["classes"], target)
