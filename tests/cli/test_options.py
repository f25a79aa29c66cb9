"""The table of options: help, config and commands say what it says, and it says what the code does."""

import inspect
import re
from typing import get_args

import pytest
from typer.testing import CliRunner

from autotune.cli import app, learned, measure, paper, reference, reports
from autotune.cli.options import COMMANDS
from autotune.config import (
    DEFAULT_SIZES,
    Config,
    DeviceKind,
    Norm,
    Objective,
    Optimizer,
    Precision,
    SamplerName,
    ScheduleName,
    load_config,
)
from autotune.report.export.targets import TARGETS
from autotune.settings import SETTINGS

FUNCTIONS = {
    name: function
    for module in (learned, measure, paper, reports, reference)
    for name, function in vars(module).items()
    if name in COMMANDS
}


def test_every_command_is_a_function():
    assert set(FUNCTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_what_the_table_says(name):
    inspect.signature(FUNCTIONS[name]).bind(**{row.name: None for row in COMMANDS[name]})


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_every_option_with_its_whole_description(name):
    shown = CliRunner().invoke(app, [name, "--help"], env={"TERMINAL_WIDTH": "100", "COLUMNS": "100"}).stdout
    words = " ".join(shown.replace("│", " ").split())
    for row in COMMANDS[name]:
        assert row.is_argument or all(spelling in words for spelling in row.spellings), row.name
        assert [word for word in re.findall(r"\w+", row.description) if word not in words] == []
    assert FUNCTIONS[name].__doc__ in words


def test_the_list_of_commands_is_not_cut():
    words = " ".join(CliRunner().invoke(app, ["--help"]).stdout.replace("│", " ").split())
    assert [function for function in FUNCTIONS.values() if function.__doc__ not in words] == []


def test_the_keys_of_a_config_file_are_the_settings():
    assert set(Config.model_fields) == set(SETTINGS)
    assert set(SETTINGS) <= {row.name for row in COMMANDS["run"]}


@pytest.mark.parametrize("row", SETTINGS.values(), ids=lambda row: row.name)
def test_a_key_has_the_default_and_the_description_of_its_flag(row):
    field = Config.model_fields[row.name]
    assert (field.default, field.description) == (row.default, row.description)


VALUED = [row for row in SETTINGS.values() if row.default not in (None, False)]


@pytest.mark.parametrize("row", VALUED, ids=lambda row: row.name)
def test_a_default_in_words_is_the_default(row):
    """Giving the words settles the same as giving nothing."""
    config = load_config(None, {row.name: row.shown_default})
    assert getattr(config, row.name) == getattr(load_config(None, {}), row.name)


@pytest.mark.parametrize("name", DEFAULT_SIZES["cpu"])
def test_sizes_by_device_are_told(name):
    for kind, words in (("cpu", "{} on the CPU"), ("cuda", "{} on a GPU")):
        assert words.format(DEFAULT_SIZES[kind][name]) in SETTINGS[name].default_text


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("device", DeviceKind),
        ("precision", Precision),
        ("optimizer", Optimizer),
        ("norm", Norm),
        ("objective", Objective),
    ],
)
def test_choices_are_those_of_the_config(name, choices):
    assert tuple(SETTINGS[name].metavar.split("|")) == get_args(choices)


@pytest.mark.parametrize(("name", "choices"), [("sampler", SamplerName), ("schedule", ScheduleName)])
def test_long_choices_are_in_the_help(name, choices):
    assert [choice for choice in get_args(choices) if choice not in SETTINGS[name].help] == []


def test_every_launcher_is_in_the_help():
    (to,) = (row for row in COMMANDS["export"] if row.name == "to")
    assert [target for target in TARGETS if not re.search(rf"\b{target}\b", to.help)] == []
