"""A plain nn.Sequential, as a beginner writes it."""

import torch
from torch import nn


def build(width: int = 32, blocks: int = 6) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Linear(8, width)]
    for _ in range(blocks):
        parts += [nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())]
    return nn.Sequential(*parts, nn.Linear(width, 4))


def example_batch(batch_size: int):
    return torch.randn(batch_size, 8), torch.randint(4, (batch_size,))
