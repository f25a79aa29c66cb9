"""Copies of the files that a launcher reads, and the placeholders in commands."""

import json
import re
import tomllib

import pytest

from autotune.command.files import Setting, copies, present_value, with_copies
from autotune.command.present import command_facts
from autotune.command.template import (
    NAMES,
    check_placeholders,
    environment_of,
    fill,
    present_numbers,
    says_which,
    values_of,
)
from autotune.errors import InputError, UsageError
from autotune.records.prediction import Candidate

VALUES = {"micro_batches": "8", "micro_batch_size": "4"}
YAML = "# mine\ntokens:\n  micro_batch_size: 1  # b\n  accumulate: 2\n"


def changed(folder, name, text, *settings):
    path = folder / name
    path.write_text(text)
    made = copies([Setting.parse(f"{path}:{one}") for one in settings], VALUES, folder / "trial")
    assert path.read_text() == text
    return (folder / "trial" / name).read_text(), made


def test_yaml_keeps_comments_and_order(tmp_path):
    text, made = changed(
        tmp_path, "a.yaml", YAML, "tokens.micro_batch_size={micro_batch_size}", "tokens.accumulate={micro_batches}"
    )
    assert text == "# mine\ntokens:\n  micro_batch_size: 4  # b\n  accumulate: 8\n"
    assert made == {str(tmp_path / "a.yaml"): str(tmp_path / "trial" / "a.yaml")}


def test_json_and_toml_hold_numbers_and_texts(tmp_path):
    text, _ = changed(
        tmp_path, "a.json", '{"steps": 1, "x": {"y": "z"}}', "steps={micro_batches}", "x.y=m{micro_batches}"
    )
    assert json.loads(text) == {"steps": 8, "x": {"y": "m8"}}
    text, _ = changed(tmp_path, "a.toml", "[training] # t\nlocal = 1\n", "training.local={micro_batch_size}")
    assert tomllib.loads(text) == {"training": {"local": 4}}
    assert "# t" in text


def test_two_files_of_one_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.json").write_text('{"a": 1}')
    settings = [Setting.parse(f"{tmp_path}/{name}/c.json:a={{micro_batches}}") for name in ("one", "two")]
    made = copies(settings, VALUES, tmp_path / "trial")
    assert len(set(made.values())) == 2


def test_the_command_reads_the_copies():
    made = {"conf/a.yaml": "/t/a.yaml"}
    words = ["train", "conf/a.yaml", "--config=conf/a.yaml", "conf/a.yaml.old"]
    assert with_copies(words, made) == ["train", "/t/a.yaml", "--config=/t/a.yaml", "conf/a.yaml.old"]


@pytest.mark.parametrize("text", ["a.yaml", "a.yaml:b", "a.yaml=3", "a.ini:b=3", ":b=3", "a.yaml:b..c=3"])
def test_a_setting_that_is_none(text):
    with pytest.raises(UsageError, match="--set: "):
        Setting.parse(text)


@pytest.mark.parametrize(
    ("name", "text", "setting", "message"),
    [
        ("a.json", "{", "a=1", "cannot be read: "),
        ("a.yaml", "a: [", "a=1", "cannot be read: "),
        ("a.yaml", "a: 1\nb: 2\na: 3\n", "a=1", "line 3: the key 'a' is there already; remove one of the two; mend"),
        ("a.toml", "a = ", "a=1", "cannot be read: "),
        ("a.json", '{"a": 1}', "b.c=1", "has no b; give a key"),
        ("a.json", '{"a": 1}', "a.c=1", "is no table"),
        ("a.json", "[1]", "a=1", "is no table"),
    ],
)
def test_a_file_without_the_key(tmp_path, name, text, setting, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        changed(tmp_path, name, text, setting)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        copies([Setting.parse(f"{tmp_path}/a.json:a=1")], VALUES, tmp_path)


def test_values_of_a_candidate():
    one = Candidate(micro_batches=8, micro_batch_size=4, sequences=32, schedule="1F1B", virtual_stages=1)
    values = values_of(one, 4, 2, 29500, "/t", (7, 6, 6, 5))
    assert tuple(values) == NAMES
    assert (values["layout"], values["layers_per_stage"]) == ("Et*7|t*6|t*6|t*5L", "7,6,6,5")
    assert [len(names) for names in json.loads(values["module_names"])] == [8, 6, 6, 7]
    assert "layout" not in values_of(one, 4, 2, 29500, "/t")
    assert (values["batch"], values["global_batch"], values["stages"]) == ("32", "64", "4")
    assert environment_of(values)["AUTOTUNE_GLOBAL_BATCH"] == "64"


def test_other_words_in_braces_stay():
    assert fill('{"a": {micro_batches}} ${HOME} {other}', VALUES) == '{"a": 8} ${HOME} {other}'
    check_placeholders(['{"a": {micro_batches}} ${HOME} {other}'])


def test_a_placeholder_may_hold_what_stands_there_now():
    text = "--m {micro_batches=4} --b {micro_batch_size=8}"
    assert fill(text, VALUES) == "--m 8 --b 4"
    assert present_numbers([text]) == {"micro_batches": 4, "micro_batch_size": 8}
    assert says_which([text])


@pytest.mark.parametrize(
    ("words", "key", "now", "found"),
    [
        (["--m", "{micro_batches=4}"], None, None, 4),
        (["--b={micro_batch_size=4}"], None, None, 16),
        (["--b={micro_batch_size=5}"], None, None, None),
        (["--m", "{micro_batches}"], None, None, None),
        (["ds.json"], "a.steps={micro_batches}", 8, 8),
        (["ds.json"], "a.size={micro_batch_size}", 2, 32),
        (["ds.json"], "a.size=m{micro_batch_size}", 2, None),
        (["ds.json"], "a.new={micro_batches}", 2, None),
        (["ds.json"], "a.steps={micro_batches}", "auto", None),
    ],
)
def test_how_many_micro_batches_a_command_runs_with_now(tmp_path, words, key, now, found):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"a": {"steps": now, "size": now}}))
    settings = [Setting.parse(f"{file}:{key}")] if key else []
    facts = command_facts(words, settings, 64)
    assert facts.micro_batches == found
    assert command_facts(words, settings, 64, 2).micro_batches == 2
    assert [one.present for one in facts.file_values] == ([None if "new" in key else json.dumps(now)] if key else [])


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", '{"x": {"y": 4}}'), ("a.yaml", "x:\n  y: 4\n"), ("a.toml", "[x]\ny = 4\n")]
)
def test_what_a_file_of_each_form_holds_now(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert present_value(Setting.parse(f"{tmp_path / name}:x.y={{micro_batches}}")) == 4
    assert present_value(Setting.parse(f"{tmp_path / name}:x.z.w={{micro_batches}}")) is None


def test_a_placeholder_that_is_misspelt():
    with pytest.raises(UsageError, match=re.escape("did you mean {micro_batches}")):
        check_placeholders(["--m {micro_batchs}"])


@pytest.mark.parametrize(
    ("text", "says"), [("-m {micro_batches}", True), ("b{micro_batch_size}", True), ("{port}", False)]
)
def test_whether_a_command_is_told_m(text, says):
    assert says_which(["x", text]) is says
