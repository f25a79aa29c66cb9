"""A user's file made to run a plan: what contradicts it goes or is refused; what differs from the report is said."""

import difflib
import json
from pathlib import Path

import pytest

from autotune.errors import InputError
from autotune.report.export.edit.document import Document, Language
from autotune.report.export.export import export
from autotune.report.load import read_report
from tests.report.export.reports import make_report

DATA = Path(__file__).parent / "data"
UNEVEN = Path(__file__).parents[1] / "data" / "uneven_layers.json"
REPORT = make_report()


def exported(to, name, report=REPORT, **more):
    """The lines that change, and the notes."""
    path = DATA / name
    made = export(report, to, merge=path, **({"version": "0.2"} if to == "torchtitan" else {}), **more)
    lines = difflib.unified_diff(path.read_text().splitlines(), made.text.splitlines(), n=0, lineterm="")
    return [line for line in list(lines)[2:] if line[0] in "+-"], "\n".join(made.notes)


def written(tmp_path, to, name, text, report=REPORT, **more):
    path = tmp_path / name
    path.write_text(text)
    return export(report, to, merge=path, **more)


def test_a_layout_and_several_stages_per_rank_go_and_a_ramp_is_said():
    lines, notes = exported("megatron-bridge", "mbridge_layout.yaml")
    assert lines == [
        "-  virtual_pipeline_model_parallel_size: 2",
        '-  pipeline_model_parallel_layout: "Et|t|t|t|t|t|t|tL"',
        "+  virtual_pipeline_model_parallel_size: null",
        "-  global_batch_size: 32",
        "-  micro_batch_size: 1",
        "+  global_batch_size: 64",
        "+  micro_batch_size: 8",
    ]
    assert "removed model.pipeline_model_parallel_layout (Et|t|t|t|t|t|t|tL): it cuts the layers otherwise" in notes
    assert "train.rampup_batch_size ([8, 8, 160]): m grows with the batch" in notes
    assert "model.num_layers in mbridge_layout.yaml is 8, and 48 layers were measured" in notes


def test_a_first_and_a_last_stage_of_their_own_go():
    lines, notes = exported("megatron-bridge", "mbridge_uneven_layout.yaml")
    assert "-  num_layers_in_first_pipeline_stage: 11" in lines
    assert "-  num_layers_in_last_pipeline_stage: 11" in lines
    assert notes.count("removed model.num_layers_in_") == 2


def test_a_cut_that_was_measured_takes_the_place_of_the_files(tmp_path):
    text = "model:\n  pipeline_model_parallel_layout: 'Et|tL'\ntrain:\n  micro_batch_size: 1\n"
    made = written(tmp_path, "megatron-bridge", "run.yaml", text, make_report(split=(13, 13, 12, 10)))
    assert "pipeline_model_parallel_layout: 'Et*13|t*13|t*12|t*10L'\n" in made.text
    assert not any("removed" in note for note in made.notes)


def test_split_points_and_a_schedule_of_the_users_own_go():
    lines, notes = exported("torchtitan", "titan_split.toml")
    gone = ("pipeline_parallel_split_points", "pipeline_parallel_schedule_csv", "module_fqns_per_model_part")
    for key in gone:
        assert any(line.startswith(f"-{key}") for line in lines)
        assert f"removed parallelism.{key}" in notes
    assert '+pipeline_parallel_schedule = "1F1B"' in lines


def test_zero_2_and_elasticity_are_refused_by_name():
    with pytest.raises(InputError) as caught:
        export(REPORT, "deepspeed", merge=DATA / "ds_zero2_elastic.json")
    assert "zero_optimization.stage (2): DeepSpeed runs a pipeline only with stage 0 or 1" in str(caught.value)
    assert "elasticity.enabled (True)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_is_not_written_anew():
    lines, _ = exported("deepspeed", "deepspeed.json")
    assert lines == [
        '-    "train_batch_size": 4,',
        '+    "train_batch_size": 64,',
        '+    "train_micro_batch_size_per_gpu": 8,',
        '+    "gradient_accumulation_steps": 8,',
    ]


def test_gpt_neox_keeps_its_braces_and_comments():
    lines, _ = exported("gpt-neox", "gpt-neox.yml")
    assert lines == [
        '-  "train_micro_batch_size_per_gpu": 4,',
        '-  "gradient_accumulation_steps": 32, # comment',
        '+  "train_micro_batch_size_per_gpu": 8,',
        '+  "gradient_accumulation_steps": 8, # comment',
    ]


def test_gpt_neox_keeps_its_dashes(tmp_path):
    text = '{\n  "pipe-parallel-size": 1,\n  "train-batch-size": 64,\n  "seq-length": 2048,\n}\n'
    made = written(tmp_path, "gpt-neox", "a.yml", text, data_parallel=2)
    assert '"pipe-parallel-size": 4,\n' in made.text
    assert '"train-batch-size": 128,\n' in made.text
    assert '"train-micro-batch-size-per-gpu": 8,\n' in made.text
    assert "seq_length in a.yml is 2048, and 32 tokens were measured" in made.notes


def test_accelerates_yaml_has_keys_of_its_own_and_says_how_many_ranks():
    lines, notes = exported("accelerate", "accelerate.yaml")
    assert [line for line in lines if line[0] == "+"] == [
        "+  megatron_lm_num_micro_batches: 8",
        "+  megatron_lm_pp_degree: 4",
    ]
    assert "data-parallel replicas: 2, from accelerate.yaml (num_processes 8 / 4 ranks of a replica)" in notes
    _, notes = exported("accelerate", "accelerate.yaml", data_parallel=4)
    assert "num_processes in accelerate.yaml is 8, and 4 replicas of 4 ranks take 16" in notes


def test_ranks_that_are_no_whole_replicas_are_refused(tmp_path):
    text = "distributed_type: MEGATRON_LM\nnum_processes: 6\nmegatron_lm_config:\n  megatron_lm_tp_degree: 1\n"
    with pytest.raises(InputError, match="num_processes is 6, no multiple of the 4 ranks of a replica"):
        written(tmp_path, "accelerate", "a.yaml", text)
    with pytest.raises(InputError, match=r"distributed_type \(FSDP\): only MEGATRON_LM has a pipeline"):
        written(tmp_path, "accelerate", "b.yaml", text.replace("MEGATRON_LM", "FSDP"))


def test_automodel_is_told_the_batch_of_a_replica_and_the_size_of_a_micro_batch():
    lines, _ = exported("automodel", "automodel.yaml", data_parallel=2)
    assert [line for line in lines if line[0] == "+"] == [
        "+  global_batch_size: 128",
        "+  local_batch_size: 64",
        "+  pp_size: 4",
        "+    pp_schedule: 1f1b",
        "+    pp_microbatch_size: 8",
    ]


@pytest.mark.parametrize(
    ("to", "name", "text", "replicas", "batch"),
    [
        ("nanotron", "a.yaml", "parallelism: {dp: 8, pp: 1}\ntokens: {micro_batch_size: 1}\n", 8, "dp: 8"),
        ("deepspeed", "a.json", json.dumps({"train_batch_size": 48} | {"train_micro_batch_size_per_gpu": 4}), 1, "64"),
        (
            "deepspeed",
            "b.json",
            json.dumps({"train_batch_size": 48, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3}),
            4,
            '"train_batch_size": 256',
        ),
        (
            "torchtitan",
            "a.toml",
            "[parallelism]\ndata_parallel_replicate_degree = 2\ndata_parallel_shard_degree = 4\n",
            8,
            "global_batch_size = 512",
        ),
        ("torchtitan", "b.toml", "[parallelism]\ndata_parallel_shard_degree = -1\n", 1, "global_batch_size = 64"),
        (
            "nemo",
            "a.yaml",
            "trainer:\n  devices: 8\n  num_nodes: 4\n  strategy:\n    tensor_model_parallel_size: 2\n",
            4,
            "global_batch_size: 256",
        ),
    ],
)
def test_replicas_come_from_the_file_unless_a_flag_says_others(tmp_path, to, name, text, replicas, batch):
    version = {"version": "0.2"} if to == "torchtitan" else {}
    made = written(tmp_path, to, name, text, **version)
    assert batch in made.text
    assert any(f"x {replicas} replicas" in note for note in made.notes)
    given = written(tmp_path, to, name, text, data_parallel=3, **version)
    assert any("x 3 replicas" in note for note in given.notes)


def test_replicas_of_the_report_are_taken_only_where_the_file_says_none(tmp_path):
    report = make_report(data_parallel=2)
    text = "parallelism: {dp: 8, pp: 1}\ntokens: {micro_batch_size: 1}\n"
    assert any("x 8 replicas" in note for note in written(tmp_path, "nanotron", "a.yaml", text, report).notes)
    made = written(tmp_path, "deepspeed", "a.json", '{"train_batch_size": 4}', report)
    assert json.loads(made.text)["train_batch_size"] == 128
    assert any("2 as measured is taken" in note for note in made.notes)


def test_a_byte_order_mark_and_carriage_returns_stay(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufeffparallelism:\r\n  dp: 1\r\ntokens:\r\n  micro_batch_size: 1 # é\r\n".encode())
    made = export(REPORT, "nanotron", merge=path).text
    assert made.startswith("\ufeffparallelism:\r\n  dp: 1\r\n  pp: 4\r\n")
    assert "  micro_batch_size: 8 # é\r\n" in made
    assert made.count("\n") == made.count("\r\n")


@pytest.mark.parametrize(
    "text",
    [
        "x: &b\n  dp: 1\nparallelism: *b\ntokens:\n  micro_batch_size: 1\n",
        "tokens:\n  micro_batch_size: &m 1\n  other: *m\nparallelism:\n  dp: 1\n",
    ],
)
def test_what_an_anchor_shares_is_never_changed_for_others(tmp_path, text):
    with pytest.raises(InputError, match="change it by hand"):
        written(tmp_path, "nanotron", "run.yaml", text)


def test_keys_merged_from_elsewhere_are_set_where_they_count(tmp_path):
    text = "base: &b\n  dp: 2\n  pp: 1\nparallelism:\n  <<: *b\n  tp: 1\ntokens:\n  micro_batch_size: 1\n"
    made = written(tmp_path, "nanotron", "run.yaml", text)
    assert made.text.startswith("base: &b\n  dp: 2\n  pp: 1\nparallelism:\n  <<: *b\n  tp: 1\n")
    values = Document(Language.YAML, made.text).values
    assert values["parallelism"] == {"dp": 2, "pp": 4, "tp": 1, "pp_engine": "1f1b"}


def test_layers_that_do_not_divide_are_said_where_they_can_be_and_noted_where_not(tmp_path):
    """Five layers in four stages, measured as 1, 2, 1, 1."""
    report = read_report(UNEVEN)
    assert "--pipeline-model-parallel-layout 'Et|tt|t|tL'" in export(report, "megatron-lm").text
    assert '["model.rotary_emb", "model.layers.1", "model.layers.2"]' in export(report, "automodel").text
    config = tmp_path / "job.toml"
    config.write_text("[parallelism]\npipeline_parallel_degree = 2\n")
    made = export(report, "torchtitan", version="0.2", merge=config)
    assert '["layers.1", "layers.2"]' in made.text
    for to in ("deepspeed", "nanotron", "gpt-neox"):
        assert any("which may differ from the measured cut 1,2,1,1" in note for note in export(report, to).notes)


def test_an_export_says_what_was_measured_on_what_and_how_sure():
    notes = export(read_report(UNEVEN), "megatron-lm").notes
    expected = "measured: 212.5 sequences/s; 5 layers, 4 stages, batch 8 on cpu (1 x Intel(R) Xeon(R) Processor)"
    assert any(note.startswith(expected) and note.endswith("sure") for note in notes)


def test_an_undecided_pick_is_exported_with_what_else_it_could_be():
    spot = REPORT.sweet_spot.model_copy(update={"certainty": 0.4, "undecided_with": (0,)})
    notes = export(REPORT.model_copy(update={"sweet_spot": spot}), "deepspeed").notes
    assert any("undecided between" in note and "(40% sure)" in note for note in notes)
    other = export(REPORT, "megatron-lm", candidate=9).notes
    assert any("not the sweet spot of the report" in note for note in other)


def test_megatron_is_not_told_a_batch_that_its_ramp_says():
    ramp = REPORT.model_copy(update={"command": "autotune run -- train.sh --step-batch-size-schedule '0:16 1M:64'"})
    made = export(ramp, "megatron-lm")
    assert "--global-batch-size" not in made.text
    assert any("--global-batch-size is left out" in note for note in made.notes)
