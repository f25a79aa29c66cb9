"""Every launcher is told the same candidate in its own words, and what it cannot do is refused with one that it can."""

import json
import shlex
import tomllib

import pytest

from autotune.errors import InputError, UsageError
from autotune.records.job.recompute import Recompute
from autotune.records.job.split import from_torchtitan
from autotune.report.export.export import export
from autotune.report.export.targets import TARGETS
from tests.report.export.reports import make_report

REPORT = make_report()


def words(report, to, **more):
    return shlex.split(export(report, to, **more).text)


def test_megatron_lm_is_told_the_global_batch():
    assert words(REPORT, "megatron-lm", data_parallel=8) == [
        *("--pipeline-model-parallel-size", "4"),
        *("--micro-batch-size", "8"),
        *("--global-batch-size", str(8 * 8 * 8)),
    ]


def test_megatron_lm_interleaves():
    report = make_report((8, "Interleaved1F1B"), virtual_stages=3)
    text = " ".join(words(report, "megatron-lm"))
    assert "--num-virtual-stages-per-pipeline-rank 3" in text


def test_megatron_bridge_and_nemo_have_the_same_facts_under_their_own_names():
    assert words(REPORT, "megatron-bridge") == [
        "model.pipeline_model_parallel_size=4",
        "model.virtual_pipeline_model_parallel_size=null",
        "train.micro_batch_size=8",
        "train.global_batch_size=64",
    ]
    assert words(REPORT, "nemo") == [
        "trainer.strategy.pipeline_model_parallel_size=4",
        "trainer.strategy.virtual_pipeline_model_parallel_size=null",
        "data.micro_batch_size=8",
        "data.global_batch_size=64",
    ]


def test_deepspeed_accumulates():
    made = export(REPORT, "deepspeed", data_parallel=2)
    assert json.loads(made.text) == {
        "train_batch_size": 128,
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 8,
    }
    assert any("num_stages=4" in note for note in made.notes)


@pytest.mark.parametrize("version", [None, "0.2", "0.3.0"])
def test_torchtitan_was_told_a_size(version):
    assert words(REPORT, "torchtitan", version=version, data_parallel=2) == [
        *("--parallelism.pipeline_parallel_degree", "4"),
        *("--parallelism.pipeline_parallel_schedule", "1F1B"),
        *("--parallelism.pipeline_parallel_microbatch_size", "8"),
        *("--training.local_batch_size", "64"),
        *("--training.global_batch_size", "128"),
    ]


@pytest.mark.parametrize("version", ["main", "0.4"])
def test_torchtitan_is_told_a_count(version):
    assert words(REPORT, "torchtitan", version=version, data_parallel=2)[4:] == [
        *("--parallelism.num_pp_microbatches", "8"),
        *("--training.num_tokens_per_microbatch_per_dp_rank", str(8 * 32)),
        *("--training.num_tokens_per_train_step", str(128 * 32)),
    ]


@pytest.mark.parametrize(("layers", "virtual_stages", "each"), [(48, 2, 7), (30, 2, 4), (46, 3, 4)])
def test_torchtitan_is_told_the_layers_of_which_it_makes_our_stages(layers, virtual_stages, each):
    """It makes ceil((layers + 2) / layers per stage) stages."""
    report = make_report((8, "Interleaved1F1B"), virtual_stages=virtual_stages, layers=layers)
    assert -(-(layers + 2) // each) == 4 * virtual_stages
    assert f"--parallelism.pipeline_parallel_layers_per_stage {each} " in export(report, "torchtitan").text


def test_torchtitan_that_cannot_make_our_stages_refuses():
    report = make_report((8, "Interleaved1F1B"), virtual_stages=5, layers=22)  # of 24, none but 1 or 2 per stage
    with pytest.raises(UsageError, match="cannot cut 22 layers into 20 stages"):
        export(report, "torchtitan")


def test_nanotron_always_has_its_engine_set():
    text = export(REPORT, "nanotron", data_parallel=2).text
    assert text == (
        "parallelism:\n  dp: 2\n  pp: 4\n  pp_engine: 1f1b\n"
        "tokens:\n  batch_accumulation_per_replica: 8\n  micro_batch_size: 8\n"
    )
    assert "pp_engine: afab" in export(make_report((8, "GPipe")), "nanotron").text


def test_accelerate_takes_flags_and_a_data_loader():
    made = export(REPORT, "accelerate")
    assert made.text == "--use_megatron_lm --megatron_lm_pp_degree 4 --megatron_lm_num_micro_batches 8\n"
    assert any("batch_size=8" in note for note in made.notes)


def test_colossal_takes_arguments():
    assert export(REPORT, "colossalai").text == (
        "HybridParallelPlugin(tp_size=1, pp_size=4, pp_style='1f1b', num_microbatches=8)\n"
    )


def test_scripts_take_variables():
    assert "AUTOTUNE_MICRO_BATCHES=8\n" in export(REPORT, "shell").text
    assert "micro_batches=8\n" in export(REPORT, "key-value").text


@pytest.mark.parametrize("to", TARGETS)
def test_padding_is_refused_and_another_candidate_named(to):
    report = make_report((6, "1F1B"))
    with pytest.raises(UsageError) as caught:
        export(report, to)
    assert "does not pad: m x micro-batch size = 66, for 64 sequences" in str(caught.value)
    assert "--candidate " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_candidate_named_can_be_exported():
    """By throughput: the fastest of what the launcher has, leaving out what failed."""
    report = make_report((16, "GPipe"), failed=[(16, "1F1B")])
    with pytest.raises(UsageError, match="has no GPipe, only 1F1B") as caught:
        export(report, "deepspeed")
    index = int(str(caught.value).split("--candidate ")[1])
    row = report.candidates[index]
    assert (row.schedule, row.failure) == ("1F1B", None)
    rivals = [one for one in report.candidates if one.schedule == "1F1B" and not one.failure and not one.padding]
    assert row.prediction.throughput_seq_s == max(one.prediction.throughput_seq_s for one in rivals)
    assert json.loads(export(report, "deepspeed", candidate=index).text)["train_batch_size"] == 64


@pytest.mark.parametrize(("to", "word"), [("megatron-lm", "--micro-batch-size 32"), ("torchtitan", "GPipe")])
def test_gpipe_with_few_micro_batches_is_1f1b_where_that_takes_them(to, word):
    assert word in export(make_report((2, "GPipe")), to).text


@pytest.mark.parametrize(
    ("to", "report", "reason"),
    [
        ("megatron-lm", make_report((8, "ZBVZeroBubble"), virtual_stages=2), "has no ZBVZeroBubble"),
        ("accelerate", make_report(layers=50), "as many layers; it takes no cut such as 12,13,13,12"),
        ("deepspeed", make_report(split=(13, 13, 12, 10)), "cuts the layers itself; it takes no cut such as 13,13,12"),
        ("nanotron", make_report(split=(13, 13, 12, 10)), "cuts the layers itself"),
        ("colossalai", make_report(split=(13, 13, 12, 10)), "cuts the layers itself"),
        ("nemo", make_report((2, "Interleaved1F1B"), virtual_stages=2), "multiple of the 4 ranks"),
        ("colossalai", make_report((2, "GPipe")), "needs m of at least 4"),
        ("torch", make_report(vocab=None), "does not know vocab"),
    ],
)
def test_what_a_launcher_cannot_do_is_refused(to, report, reason):
    with pytest.raises(UsageError, match=reason):
        export(report, to)


CUT = make_report(split=(13, 13, 12, 10))
LAYOUT = "Et*13|t*13|t*12|t*10L"


def test_megatron_is_told_a_cut_as_its_layout():
    assert f"--pipeline-model-parallel-layout '{LAYOUT}'" in export(CUT, "megatron-lm").text
    assert f"model.pipeline_model_parallel_layout={LAYOUT}\n" in export(CUT, "megatron-bridge").text
    assert f"trainer.strategy.pipeline_model_parallel_layout={LAYOUT}\n" in export(CUT, "nemo").text


def test_megatron_is_told_our_cut_of_layers_that_do_not_divide():
    assert "'Et*12|t*13|t*13|t*12L'" in export(make_report(layers=50), "megatron-lm").text


def test_a_layout_says_how_many_stages_a_rank_has_and_no_flag_beside_it():
    report = make_report((8, "Interleaved1F1B"), virtual_stages=2, split=(7, 7, 6, 6, 6, 6, 6, 4))
    text = export(report, "megatron-lm").text
    assert "'Et*7|t*7|t*6|t*6|t*6|t*6|t*6|t*4L'" in text
    assert "virtual" not in text


def test_torchtitan_is_told_a_cut_by_names_where_its_flags_take_none(tmp_path):
    made = export(CUT, "torchtitan")
    assert "module_fqns" not in made.text
    assert any('["tok_embeddings", "layers.0", ' in note for note in made.notes)
    config = tmp_path / "mine.toml"
    config.write_text("[parallelism]\n")
    parts = tomllib.loads(export(CUT, "torchtitan", version="0.2", merge=config).text)["parallelism"]
    assert from_torchtitan(json.dumps(parts["module_fqns_per_model_part"])) == (13, 13, 12, 10)
    assert parts["module_fqns_per_model_part"][-1][-2:] == ["norm", "output"]


def test_torchtitan_that_cuts_otherwise_than_measured_says_so():
    """It counts the embedding and the head as a layer each: 50 in four stages are 13, 13, 12, 12."""
    (note,) = [note for note in export(REPORT, "torchtitan").notes if "cuts the layers" in note]
    assert note.startswith("torchtitan cuts the layers 12,13,12,11, measured was 12,12,12,12")
    own = export(make_report(split=(12, 13, 12, 11)), "torchtitan").notes
    assert not any("torchtitan cuts" in note or "no flag" in note for note in own)


def test_scripts_take_the_cut():
    assert "AUTOTUNE_SPLIT=13,13,12,10\n" in export(CUT, "shell").text
    assert "split=13,13,12,10\n" in export(CUT, "key-value").text
    assert "SPLIT = (13, 13, 12, 10)" in export(CUT, "torch").text


def test_recomputation_is_said_in_the_launchers_own_keys_or_in_a_note():
    full, selective = (make_report(recompute=(Recompute(mode),) * 4) for mode in ("full", "selective"))
    words = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    assert words in export(full, "megatron-lm").text
    assert "model.recompute_num_layers=1\n" in export(full, "megatron-bridge").text
    assert "--activation_checkpoint.selective_ac_option op" in export(selective, "torchtitan").text
    assert "recompute_layer: true" in export(full, "nanotron").text
    assert "recompute=full\n" in export(full, "key-value").text
    for report, to in ((selective, "megatron-lm"), (full, "deepspeed")):
        assert any("recompute" in note and "set it in code" in note for note in export(report, to).notes)
        assert "recompute" not in export(report, to).text


def test_stages_that_recompute_differently_are_set_in_code():
    mixed = make_report(recompute=tuple(map(Recompute, ("full", "full", "none", "none"))))
    made = export(mixed, "torchtitan")
    assert "checkpoint" not in made.text
    assert any("recompute full,full,none,none: set it in code" in note for note in made.notes)


def test_bad_requests_say_what_would_be_right():
    for more, message in (
        ({"to": "horovod"}, "use one of megatron-lm"),
        ({"to": "torchtitan", "version": "newest"}, "such as 0.3, or main"),
        ({"to": "nemo", "version": "2"}, "leave it out"),
        ({"to": "nemo", "candidate": 99}, "has 0 to"),
    ):
        with pytest.raises(UsageError, match=message):
            export(REPORT, **more)
    with pytest.raises(InputError, match="names no sweet spot"):
        export(make_report(None), "nemo")
