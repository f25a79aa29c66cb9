"""Copies of the files that a launcher reads, and the placeholders in commands."""

import json
import re
import tomllib

import pytest

from autotune.command.files import Setting, copies, with_copies
from autotune.command.template import NAMES, check_placeholders, environment_of, fill, says_which, values_of
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
    values = values_of(one, 4, 2, 29500, "/t")
    assert tuple(values) == NAMES
    assert (values["batch"], values["global_batch"], values["stages"]) == ("32", "64", "4")
    assert environment_of(values)["AUTOTUNE_GLOBAL_BATCH"] == "64"


def test_other_words_in_braces_stay():
    assert fill('{"a": {micro_batches}} ${HOME} {other}', VALUES) == '{"a": 8} ${HOME} {other}'
    check_placeholders(['{"a": {micro_batches}} ${HOME} {other}'])


def test_a_placeholder_that_is_misspelt():
    with pytest.raises(UsageError, match=re.escape("did you mean {micro_batches}")):
        check_placeholders(["--m {micro_batchs}"])


@pytest.mark.parametrize(
    ("text", "says"), [("-m {micro_batches}", True), ("b{micro_batch_size}", True), ("{port}", False)]
)
def test_whether_a_command_is_told_m(text, says):
    assert says_which(["x", text]) is says
