"""Existing config files: only our keys change; comments and order stay where the format has them."""

import json

import pytest

from autotune.errors import InputError, UsageError
from autotune.report.export.export import export
from tests.report.export.reports import make_report

REPORT = make_report()


def merge(tmp_path, to, name, text, report=REPORT, **more):
    path = tmp_path / name
    path.write_text(text)
    made = export(report, to, merge=path, **more).text
    assert path.read_text() == text  # nothing is written without --out
    return made


def test_json_keeps_order_and_other_keys(tmp_path):
    text = '{"zero": {"stage": 1}, "train_batch_size": 7, "fp16": {"enabled": false}}'
    made = json.loads(merge(tmp_path, "deepspeed", "ds.json", text))
    assert list(made)[:3] == ["zero", "train_batch_size", "fp16"]
    assert made["train_batch_size"] == 64
    assert made["zero"] == {"stage": 1}


def test_toml_keeps_comments(tmp_path):
    text = '# mine\n[training]\nlocal_batch_size = 1  # old\nsteps = 10\n\n[parallelism]\nnote = "kept"  # why\n'
    made = merge(tmp_path, "torchtitan", "job.toml", text, version="0.2")
    assert made.startswith("# mine\n[training]\nlocal_batch_size = 64  # old\nsteps = 10\n")
    assert 'note = "kept"  # why\n' in made
    assert "pipeline_parallel_microbatch_size = 8\n" in made


def test_toml_loses_a_key_that_would_ask_for_several_stages(tmp_path):
    text = "[parallelism]\npipeline_parallel_layers_per_stage = 3\npipeline_parallel_degree = 2\n"
    assert "layers_per_stage" not in merge(tmp_path, "torchtitan", "job.toml", text, version="0.2")


def test_yaml_keeps_comments_and_quotes(tmp_path):
    text = "# mine\nparallelism:\n  tp: 2  # two\n  pp: 1\nname: 'run'\ntokens:\n  sequence_length: 32\n"
    made = merge(tmp_path, "nanotron", "run.yaml", text)
    assert made.startswith("# mine\nparallelism:\n  tp: 2  # two\n  pp: 4\n")
    assert "name: 'run'\n" in made
    assert "  sequence_length: 32\n  batch_accumulation_per_replica: 8\n" in made


def test_an_empty_yaml_file_gets_our_keys(tmp_path):
    assert merge(tmp_path, "nanotron", "run.yml", "") == export(REPORT, "nanotron").text


TWICE = "model:\n  moe_config: null\n  hidden: 1024\n  moe_config:\n    num_experts: 8\n"


@pytest.mark.parametrize(
    ("to", "name", "text", "reason"),
    [
        ("deepspeed", "ds.json", "{", "is not JSON"),
        ("deepspeed", "ds.json", "[1]", "is no object"),
        ("torchtitan", "job.toml", "[", "is not TOML"),
        ("torchtitan", "job.toml", "training = 3\n[parallelism]\n", "training is no table"),
        ("nanotron", "run.yaml", "a: [", "is not YAML: line 1: expected the node content"),
        ("nanotron", "run.yaml", TWICE, r"line 4: the key 'moe_config' is there already; remove one of the two"),
        ("nanotron", "run.yaml", "- 1\n", "is no mapping"),
    ],
)
def test_a_file_that_is_something_else_is_refused_in_one_line(tmp_path, to, name, text, reason):
    with pytest.raises(InputError, match=reason) as caught:
        merge(tmp_path, to, name, text, version="0.2" if to == "torchtitan" else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [None, "0.3.0", "main"])
def test_torchtitan_reads_a_file_only_up_to_0_2(tmp_path, version):
    with pytest.raises(UsageError, match=r"takes no config file \(--target-version 0.2 does\)"):
        merge(tmp_path, "torchtitan", "job.toml", "", version=version)


def test_a_file_of_another_kind_is_refused(tmp_path):
    for to, reason in (("deepspeed", "ends in .json"), ("megatron-lm", "takes no config file")):
        with pytest.raises(UsageError, match=reason):
            export(REPORT, to, merge=tmp_path / "run.ini")
    with pytest.raises(InputError, match="cannot read"):
        export(REPORT, "deepspeed", merge=tmp_path / "absent.json")
