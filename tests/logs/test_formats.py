"""Every format of a log: steps, losses, memory and arguments come out as its launcher put them in."""

from itertools import accumulate

import pytest

from autotune.errors import UsageError
from autotune.logs.formats.spec import Role
from autotune.logs.formats.table import AUTO, FORMATS, formats_for
from autotune.logs.log import Log, StepShape, read_lines, step_seconds
from tests.logs import lines

SHAPE = StepShape(sequences=64, tokens=64 * 2048, devices=8)
WITH_SECONDS = {
    "megatron-lm": [lines.megatron, lines.bridge, lines.neox, lines.megatron_deepspeed],
    "deepspeed": [lines.deepspeed_pipeline, lines.deepspeed_engine],
    "torchtitan": [lines.torchtitan],
    "nanotron": [lines.nanotron],
    "automodel": [lines.automodel],
    "paddle": [lines.paddle],
    "lightning": [lines.nemo],
    "json": [lines.json_lines],
}
CASES = [(name, text) for name, texts in WITH_SECONDS.items() for text in texts]


def seconds_of(text, formats):
    return step_seconds(read_lines(text.splitlines(keepends=True), formats).steps, SHAPE)


@pytest.mark.parametrize(("name", "text"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_a_format_is_recognised_and_its_times_are_read(name, text):
    log = read_lines(text().splitlines(keepends=True), formats_for(AUTO))
    assert log.form is not None
    assert log.form.name == name
    assert step_seconds(log.steps, SHAPE) == pytest.approx(lines.SECONDS, rel=0.006)
    assert seconds_of(text(), formats_for(name)) == pytest.approx(lines.SECONDS, rel=0.006)


@pytest.mark.parametrize(("name", "text"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_no_other_format_takes_its_steps_for_its_own(name, text):
    """Of a line that two formats could read, ``auto`` would keep the wrong one."""
    for other, form in FORMATS.items():
        if other != name:
            read = read_lines(text().splitlines(keepends=True), (form,)).steps
            assert not [step for step in read if step.line.seconds], f"{other} reads lines of {name}"


@pytest.mark.parametrize(
    ("name", "made", "first"), [("hf", lines.hf_lines, 1), ("lightning", lines.lightning_lines, 1)]
)
def test_where_no_time_is_printed_the_moments_count_at_which_lines_arrive(name, made, first):
    log, shown = Log(formats_for(name)), made()
    moments = list(accumulate(lines.SECONDS))
    each = len([line for line in shown if "runtime" not in line]) // len(moments)
    for at, line in enumerate(shown):
        log.feed(line, moments[min(at // each, len(moments) - 1)])
    assert step_seconds(log.steps, StepShape()) == pytest.approx(lines.SECONDS[1:])
    assert [step.line.number for step in log.steps] == list(range(1, 7))


def test_the_trainers_losses_go_to_the_steps_of_its_bar():
    log = read_lines(lines.hf_lines(), formats_for("hf"))
    assert {(step.line.loss, step.line.gradient_norm) for step in log.steps} == {(10.9, 1.2)}


def test_losses_norms_memory_and_arguments_of_megatron():
    log = read_lines(lines.megatron().splitlines(), formats_for("megatron-lm"))
    assert {(step.line.loss, step.line.gradient_norm, step.line.sequences) for step in log.steps} == {
        (10.84, 2.345, 64)
    }
    assert {rank: one.allocated_bytes for rank, one in log.memory.items()} == {
        rank: (15120 - 100 * rank) * 2**20 for rank in (0, 2, 4, 6)
    }
    assert log.memory[6].reserved_bytes == 15400 * 2**20
    assert (log.arguments[Role.MICRO_BATCH_SIZE], log.arguments[Role.STAGES]) == ("4", "4")


@pytest.mark.parametrize(
    ("text", "allocated", "reserved"),
    [
        (lines.bridge, 12_345_000_000, 13_500_000_000),
        (lines.deepspeed_engine, round(10.5 * 2**30), None),
        (lines.torchtitan, None, round(2.66 * 2**30)),
        (lines.nanotron, round(123.45 * 2**20), 456 * 2**20),
        (lines.automodel, round(12.34 * 2**30), None),
        (lines.json_lines, 2**30, None),
        (lines.paddle, round(12.5 * 2**30), round(13.5 * 2**30)),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_peaks(text, allocated, reserved):
    (peak,) = read_lines(text().splitlines(), formats_for(AUTO)).memory.values()
    assert (peak.allocated_bytes, peak.reserved_bytes) == (allocated, reserved)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lines.deepspeed_pipeline, {Role.MICRO_BATCHES: "8", Role.MICRO_BATCH_SIZE: "4", Role.GLOBAL_BATCH: "64"}),
        (lines.deepspeed_engine, {Role.MICRO_BATCHES: "8", Role.MICRO_BATCH_SIZE: "4", Role.GLOBAL_BATCH: "64"}),
    ],
)
def test_arguments(text, told):
    assert read_lines(text().splitlines(), formats_for(AUTO)).arguments == told


def test_what_deepspeed_reports_of_memory():
    line = "MA 3.2 GB         Max_MA 10.5 GB         CA 11.0 GB         Max_CA 11 GB"
    (peak,) = read_lines([line], formats_for("deepspeed")).memory.values()
    assert (peak.allocated_bytes, peak.reserved_bytes) == (round(10.5 * 2**30), 11 * 2**30)


@pytest.mark.parametrize("loss", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_breaks_the_step(loss):
    log = read_lines(lines.megatron(loss).splitlines(), formats_for("megatron-lm"))
    assert all(step.line.is_broken and step.line.loss is None for step in log.steps)
    assert step_seconds(log.steps, SHAPE) == []


def test_skipped_iterations_are_not_timed():
    text = lines.megatron().replace("number of skipped iterations:   0", "number of skipped iterations:   1", 2)
    assert seconds_of(text, formats_for("megatron-lm")) == list(lines.SECONDS[2:])


def test_several_steps_to_a_line_of_which_only_moments_tell():
    shown = [f"  1%|   | {10 * number}/100 [00:01<00:40,  2.35it/s]" for number in range(1, 5)]
    log = Log(formats_for("hf"))
    for at, line in enumerate(shown):
        log.feed(line, 20.0 * at)
    assert step_seconds(log.steps, StepShape()) == [2.0, 2.0, 2.0]


def test_a_rank_that_prints_like_the_others_does_not_double_the_steps():
    text = lines.torchtitan()
    both = [
        line
        for pair in zip(text.splitlines(), text.replace("rank0", "rank3").splitlines(), strict=True)
        for line in pair
    ]
    assert len(read_lines(both, formats_for(AUTO)).steps) == len(lines.SECONDS)


@pytest.mark.parametrize(
    ("pattern", "line", "seconds"),
    [
        (r"took ([0-9.]+) s", "step took 1.5 s", 1.5),
        (r"took (?P<step_time_ms>[0-9.]+) ms", "step took 1500 ms", 1.5),
        (r"(?P<samples_per_second>[0-9.]+) samples/s", "at 32 samples/s", 2.0),
        (r"(?P<tps>[0-9,]+) tokens", "at 8,192 tokens", 2.0),
    ],
)
def test_a_pattern_of_the_users_own(pattern, line, seconds):
    assert seconds_of("\n".join([line] * 3), formats_for(pattern)) == [seconds] * 3


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("megatron", "there is no format 'megatron'; use auto, megatron-lm, "),
        ("took ([0-9.]+ s", "is no pattern: "),
        ("took [0-9.]+ s", "it has no group"),
        ("took (?P<time>[0-9.]+) s", "there is no group 'time'"),
    ],
)
def test_a_format_that_is_none(pattern, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        formats_for(pattern)


def test_lines_that_are_nothing():
    log = read_lines(["", "{not json", '{"a": [1]}', "\x00\x01" * 50_000, "[" * 100_000], formats_for(AUTO))
    assert (log.form, log.steps, log.memory, log.lines) == (None, [], {}, 5)
