"""A cut of the layers in three spellings: each is read as its launcher reads it, and comes back as it was written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.records.job.split import from_megatron, from_torchtitan, parse_split, to_megatron, to_torchtitan

CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=16).map(tuple)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("13,13,12,10", (13, 13, 12, 10)),
        (" 2, 1 ", (2, 1)),
        ("Et*13|t*13|t*12|t*10L", (13, 13, 12, 10)),
        ("Ettt|(tt|)*29,ttL", (3, *[2] * 29, 2)),
        ("E(t|)*3tL", (1, 1, 1, 1)),
        ("Ett,|tt|,(ttt|)*2,t*2L", (2, 2, 3, 3, 2)),
        ('[["tok_embeddings", "layers.0"], ["layers.1", "layers.2", "norm", "lm_head"]]', (1, 2)),
        ('[["model.embed_tokens", "model.layers.0"], ["model.layers.1", "model.norm"]]', (1, 1)),
        ("[3, 1]", (3, 1)),
    ],
)
def test_every_spelling_is_read(text, expected):
    assert parse_split(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("13;13", "write a cut as 13,13"),
        ("1,x", "write a cut as"),
        ("Ettt|(tt|)*29,m|L", "multi-token prediction"),
        ("Ett||ttL", "stage 1 has no layer"),
        ("E|tt|ttL", "stage 0 has no layer"),
        ("Ett|ttL|L", r"the loss \(L\) last"),
        ("tt|ttEL", r"embedding \(E\) comes first"),
        ("Ett|xtL", "E, t, m, L"),
        ("thirteen", "write a cut as"),
        ("E(t*99999|)*99999L", "at most"),
        ("[1, 2", "write a cut as"),
        ('[["layers.0"], 3]', "a list of module names for each stage"),
        ('[["layers.1"], ["layers.0"]]', r"in order, each once \(given: \[1, 0\]\)"),
        ('[["layers.0"], ["layers.0"]]', "each once"),
        ('[["layers.0"], ["layers.2"]]', "in order"),
        ('[["tok_embeddings"], ["layers.0"]]', "stage 0 has no layer"),
    ],
)
def test_what_is_no_cut_of_ours_is_refused_in_words(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_split(text)


def test_numbers_of_a_config_file_stay_numbers():
    assert parse_split([3, 1]) == [3, 1]
    assert parse_split([["layers.0", "layers.1"], ["layers.2"]]) == (2, 1)


@given(CUTS)
def test_what_is_written_for_a_launcher_is_read_again(split):
    assert from_megatron(to_megatron(split)) == split
    assert from_torchtitan(json.dumps(to_torchtitan(split, "lm_head"))) == split
    assert parse_split(to_megatron(split)) == split


def test_the_spellings_look_as_the_launchers_have_them():
    assert to_megatron((13, 2, 10)) == "Et*13|tt|t*10L"
    assert to_torchtitan((1, 2), "output") == [
        ["tok_embeddings", "layers.0"],
        ["layers.1", "layers.2", "norm", "output"],
    ]
