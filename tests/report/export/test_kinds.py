"""A file of another launcher or generation is refused by what is in it, in one line that names the key."""

import json
from pathlib import Path

import pytest

from autotune.errors import InputError
from autotune.report.export.edit.document import Document, Language
from autotune.report.export.export import export
from autotune.report.export.kinds import kind_of
from autotune.report.export.rules import FILE_RULES
from autotune.report.export.targets import TARGETS
from tests.report.export.reports import make_report

DATA = Path(__file__).parent / "data"
REPORT = make_report()
OWN = {
    "accelerate.yaml": "accelerate",
    "automodel.yaml": "automodel",
    "deepspeed.json": "deepspeed",
    "gpt-neox.yml": "gpt-neox",
    "mbridge_layout.yaml": "megatron-bridge",
    "mbridge_uneven_layout.yaml": "megatron-bridge",
    "nanotron.yaml": "nanotron",
    "titan_split.toml": "torchtitan",
}
"""The files of ``data/`` that a target takes; the rest no target does."""


def version_of(to):
    return "0.2" if to == "torchtitan" else None


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir()))
def test_a_file_is_taken_by_its_own_launcher_alone(name):
    for to, target in TARGETS.items():
        if (DATA / name).suffix not in target.files:
            continue
        if OWN.get(name) == to:
            export(REPORT, to, merge=DATA / name, version=version_of(to))
            continue
        with pytest.raises(InputError) as caught:
            export(REPORT, to, merge=DATA / name, version=version_of(to))
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "to", "reason"),
    [
        ("nemo1.yaml", "nemo", "it is of NeMo 1, as model.micro_batch_size shows, not of NeMo 2"),
        ("automodel.yaml", "nemo", "it is of NeMo Automodel, as step_scheduler.local_batch_size shows"),
        ("torchtitan_2024.toml", "torchtitan", "it is of torchtitan before July 2025, as training.batch_size shows"),
        ("deepspeed_template.json", "deepspeed", "is not JSON"),
        ("nanotron_duplicate_key.yaml", "nanotron", "line 4: the key 'moe_config' is there already"),
    ],
)
def test_what_shows_another_kind_is_named(name, to, reason):
    with pytest.raises(InputError, match=reason):
        export(REPORT, to, merge=DATA / name, version=version_of(to))


@pytest.mark.parametrize(
    ("text", "title", "key"),
    [
        ("base_model: a\ndatasets: []\nmicro_batch_size: 2\ntokens:\n  - <s>\n", "axolotl", "base_model"),
        ("tokens: {a: 1}\n", None, None),
        ("tokens: {micro_batch_size: 1}\nparallelism: {dp: 1}\n", "nanotron", "tokens.micro_batch_size"),
        ("pipe-parallel-size: 2\n", "GPT-NeoX", "pipe-parallel-size"),
        ("trainer: {strategy: {a: 1}}\ndata: {micro_batch_size: 1}\n", "NeMo 2", "trainer.strategy"),
        ("base_model: {a: 1}\nexp_manager: {}\ntrainer: {}\n", "NeMo 1", "exp_manager"),
        ("trainer: {}\nstrategy: {a: 1}\n", "NeMo 2, with its strategy beside the trainer", "strategy"),
        ("a: {_target_: nemo_automodel.x}\n", "NeMo Automodel", "a._target_: nemo_automodel.x"),
        ("per_device_train_batch_size: 1\n", "LLaMA-Factory or Hugging Face's Trainer", "per_device_train_batch_size"),
        ("MODEL_ARGS:\n  --micro-batch-size: 4\n", "Megatron-LM's tests", "MODEL_ARGS"),
    ],
)
def test_kinds_are_told_by_their_keys(text, title, key):
    found = kind_of(Document(Language.YAML, text))
    assert (found and (found[0].title, found[1])) == (title and (title, key))


def test_a_deepspeed_file_that_the_trainer_fills_in_is_not_deepspeeds(tmp_path):
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"train_batch_size": "auto", "zero_optimization": {"stage": 1}}))
    with pytest.raises(InputError, match=r"Hugging Face's Trainer.*as train_batch_size: auto shows"):
        export(REPORT, "deepspeed", merge=config)


def test_a_file_in_which_nothing_is_known_is_refused(tmp_path):
    config = tmp_path / "other.yaml"
    config.write_text("services:\n  web: 1\n")
    with pytest.raises(InputError, match=r"nothing in it is nanotron's.*'services'"):
        export(REPORT, "nanotron", merge=config)


def test_every_target_that_takes_a_file_has_rules_for_it():
    assert set(FILE_RULES) == {name for name, target in TARGETS.items() if target.files}
