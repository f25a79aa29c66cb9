"""The training scripts of this folder as the commands that tune them: what tests and the benchmark run alike."""

import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
RANKS = 2
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), "--nnodes", "1"),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:{port}"),
)


class Launched(NamedTuple):
    """A script under its launcher: ``stages`` of its pipeline, ``words`` of its command, ``flags`` of ``autotune run``
    beside them, the modules that it ``needs``, and a file that it reads."""

    name: str
    stages: int
    words: tuple[str, ...]
    needs: str
    flags: tuple[str, ...] = ()
    file: tuple[str, str] | None = None

    def run(self, batch: int, *more: str) -> list[str]:
        """Return the command line that tunes it."""
        flags = ("--stages", str(self.stages), "--batch", str(batch), *self.flags, *more)
        return [sys.executable, "-m", "autotune", "run", *flags, "--", *self.words]

    def write_file(self, folder: Path) -> None:
        """Write the file that it reads into the folder where it runs."""
        if self.file is not None:
            name, text = self.file
            (folder / name).write_text(text)


DS_CONFIG = '{"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "steps_per_print": 1}'
LAUNCHED = (
    Launched(
        "DeepSpeed",
        RANKS,
        (*TORCHRUN, str(HERE / "deepspeed_pipeline.py"), "ds_config.json"),
        "deepspeed",
        (
            *("--set", "ds_config.json:train_micro_batch_size_per_gpu={micro_batch_size}"),
            *("--set", "ds_config.json:gradient_accumulation_steps={micro_batches}"),
        ),
        ("ds_config.json", DS_CONFIG),
    ),
    Launched(
        "torchrun",
        RANKS,
        (*TORCHRUN, str(HERE / "pipelining.py"), "--micro-batches", "{micro_batches}", "--batch", "{batch}"),
        "torch",
    ),
    Launched(
        "Trainer",
        1,
        (
            *(sys.executable, str(HERE / "hf_trainer.py"), "--output-dir", "{trial_dir}/out"),
            *("--per-device-train-batch-size", "{micro_batch_size}"),
            *("--gradient-accumulation-steps", "{micro_batches}"),
        ),
        "accelerate, transformers.trainer",
    ),
    Launched(
        "Lightning",
        1,
        (
            *(sys.executable, str(HERE / "lightning_trainer.py")),
            *("--batch-size", "{micro_batch_size}", "--accumulate", "{micro_batches}"),
        ),
        "pytorch_lightning",
    ),
)
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
