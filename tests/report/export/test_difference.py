"""After a run of a user's command an export prints what changes in it."""

import json

import pytest

from autotune.records.job.command import CommandFacts, FileValue
from autotune.report.export.export import export
from tests.report.export.reports import make_report

MEGATRON = ("torchrun", "pretrain_gpt.py", "--pipeline-model-parallel-size", "4", "--global-batch-size={global_batch}")
B = ("--micro-batch-size", "{micro_batch_size}")
FOUR = ("--micro-batch-size", "{micro_batch_size=4}")


def tuned(*words, **facts):
    """A report of a run of a command, whose pick is m = 8 of b = 8."""
    return make_report().model_copy(update={"training_command": CommandFacts(words=words, **facts)})


@pytest.mark.parametrize(
    ("words", "facts", "text", "notes"),
    [
        (
            (*MEGATRON, *B),
            {"micro_batches": 16},
            "--micro-batch-size 8\n",
            (
                "changes in your command: micro-batch-size 4 -> 8",
                "stays: pipeline-model-parallel-size, global-batch-size",
            ),
        ),
        ((*MEGATRON, *FOUR), {}, "--micro-batch-size 8\n", ("changes in your command: micro-batch-size 4 -> 8",)),
        (
            (*MEGATRON, *B),
            {"micro_batches": 8},
            "\n",
            (
                "nothing changes in your command",
                "stays: pipeline-model-parallel-size, micro-batch-size, global-batch-size",
            ),
        ),
        ((*MEGATRON, *B), {}, "--micro-batch-size 8\n", ("is to be set in it: micro-batch-size 8",)),
        (MEGATRON, {}, "--micro-batch-size 8\n", ("is to be set in it: micro-batch-size 8",)),
        (
            ("pretrain.py", "--pipeline-model-parallel-size", "2"),
            {},
            "--pipeline-model-parallel-size 4 --micro-batch-size 8 --global-batch-size 64\n",
            ("changes in your command: pipeline-model-parallel-size 2 -> 4",),
        ),
        (
            ("train.sh", "{micro_batches}"),
            {},
            "--pipeline-model-parallel-size 4 --micro-batch-size 8 --global-batch-size 64\n",
            (),
        ),
    ],
    ids=["stated", "placeholder", "nothing", "unknown", "absent", "stages", "another launcher"],
)
def test_flags_that_change(words, facts, text, notes):
    made = export(tuned(*words, **facts), "megatron-lm")
    assert made.text == text
    assert set(notes) <= set(made.notes)
    assert bool(notes) == any("your command" in note or "set in it" in note for note in made.notes)


def test_keys_of_a_file_that_change(tmp_path):
    values = (
        FileValue(file="ds.json", key="train_micro_batch_size_per_gpu", template="{micro_batch_size}", present="2"),
        FileValue(file="ds.json", key="gradient_accumulation_steps", template="{micro_batches}", present="32"),
    )
    report = tuned("deepspeed", "train.py", "--deepspeed_config", "ds.json", file_values=values, micro_batches=32)
    made = export(report, "deepspeed")
    assert json.loads(made.text) == {
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 8,
    }
    changes = "train_micro_batch_size_per_gpu 2 -> 8, gradient_accumulation_steps 32 -> 8"
    assert f"changes in your command: {changes}" in made.notes
    assert "is to be set in it: train_batch_size 64" in made.notes
    (tmp_path / "ds.json").write_text('{"train_batch_size": 64, "zero": 1}')
    assert json.loads(export(report, "deepspeed", merge=tmp_path / "ds.json").text)["zero"] == 1


def test_overrides_and_replicas():
    words = ("train.py", "model.pipeline_model_parallel_size=4", "++train.global_batch_size={global_batch}")
    made = export(tuned(*words, "train.micro_batch_size={micro_batch_size=4}", data_parallel=2), "megatron-bridge")
    assert "train.micro_batch_size=8" in made.text.splitlines()
    assert "train.global_batch_size" not in made.text
    assert "m = 8 of 1F1B: 8 sequences x 8 micro-batches x 2 replicas = 128 sequences per step" in made.notes
