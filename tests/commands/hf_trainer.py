"""Hugging Face's Trainer with gradient accumulation in one process, as somebody would run it.

python hf_trainer.py --per-device-train-batch-size 4 --gradient-accumulation-steps 8 --output-dir out
"""

import argparse

import torch
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Module):
    """A small MLP whose outputs are to be small."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.GELU()) for _ in range(4)]
        self.net = torch.nn.Sequential(*layers)

    def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of one micro-batch."""
        return {"loss": self.net(rows).square().mean()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--per-device-train-batch-size", type=int, required=True)
    parser.add_argument("--gradient-accumulation-steps", type=int, required=True)
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--max-steps", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    arguments = TrainingArguments(
        output_dir=given.output_dir,
        per_device_train_batch_size=given.per_device_train_batch_size,
        gradient_accumulation_steps=given.gradient_accumulation_steps,
        max_steps=given.max_steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    torch.manual_seed(0)
    rows = [{"rows": row} for row in torch.randn(4096, 64, 256)]
    Trainer(Model(), arguments, train_dataset=rows).train()


if __name__ == "__main__":
    main()
