"""An image model with BatchNorm: a stem, blocks in an nn.Sequential, a head."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.convolve(x)))


class Network(nn.Module):
    def __init__(self, blocks: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.head = nn.Linear(channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def build(blocks: int = 6, channels: int = 8) -> Network:
    return Network(blocks, channels)


def example_batch(batch_size: int):
    return torch.randn(batch_size, 3, 16, 16), torch.randint(10, (batch_size,))
