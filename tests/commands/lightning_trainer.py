"""A Lightning trainer that accumulates gradients in one process, as somebody would run it."""

import argparse

import torch
from pytorch_lightning import LightningModule, Trainer


class Model(LightningModule):
    """A small MLP on random rows."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.GELU()) for _ in range(4)]
        self.net = torch.nn.Sequential(*layers)

    def training_step(self, rows: torch.Tensor, _: int) -> torch.Tensor:
        """Return the loss of one micro-batch."""
        return self.net(rows).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--accumulate", type=int, required=True)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = torch.randn(4096, 64, 256)
    Trainer(
        accelerator="cpu",
        max_steps=given.steps,
        max_epochs=-1,
        accumulate_grad_batches=given.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    ).fit(Model(), torch.utils.data.DataLoader(rows, batch_size=given.batch_size))


if __name__ == "__main__":
    main()
