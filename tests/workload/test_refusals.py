"""What a user gets wrong is said in one line that names it, before any rank starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from autotune.workload.look import look
from autotune.workload.user.refusal import ModelRefused
from tests.workload.models import FOLDER, request

HEAD = (
    "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
)
EMBED = "        self.embed = nn.Embedding(9, 4)\n"
LAYERS = "        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))\n"
FORWARD = "    def forward(self, ids):\n        x = self.embed(ids)\n"
LOOP = "        for layer in self.layers:\n            x = layer(x)\n        return x\n"
BUILD = "\ndef build():\n    return Net()\n"
FLAT = """
def build():
    return nn.Sequential(nn.Linear(4, 4), Odd(), nn.Linear(4, 4))

def example_batch(n):
    return torch.randn(n, 4), torch.randn(n, 4)

def loss(a, b):
    return (a - b).square().mean()
"""
ODD = "import torch\nfrom torch import nn\n\nclass Odd(nn.Module):\n    def forward(self, x):\n        return {}\n"
MISTAKES = {
    "no such function": ("def other():\n    pass\n", "has no build; it has other"),
    "no module": ("x = 1\nimport nothing_like_that\n", "No module named 'nothing_like_that'"),
    "syntax": ("def build(:\n", "cannot be imported"),
    "raises": ("def build():\n    raise ValueError('too wide')\n", "line 2): ValueError: too wide"),
    "needs an argument": ("def build(width):\n    pass\n", "takes width: missing a required argument: 'width'"),
    "no module returned": ("def build():\n    return 3\n", "returns a int; it must return an nn.Module"),
    "no layers": (HEAD + EMBED + FORWARD + "        return x\n" + BUILD, "no repeated layers were found"),
    "no batch": (HEAD + LAYERS + "    def forward(self, x):\n" + LOOP + BUILD, "give example_batch"),
    "exception in forward": (
        HEAD + EMBED + LAYERS + FORWARD + "        x = x @ torch.ones(5, 5)\n" + LOOP + BUILD,
        "the forward of the model failed: RuntimeError",
    ),
    "tied": (
        HEAD + EMBED + LAYERS + FORWARD + LOOP.replace("return x", "return x @ self.embed.weight.T") + BUILD,
        "embed.weight is shared: it is used after the last layer and before the first layer",
    ),
    "called twice": (HEAD + EMBED + LAYERS + FORWARD + "        x = self.layers[0](x)\n" + LOOP + BUILD, "each once"),
    "something kept": (
        HEAD + EMBED + LAYERS + FORWARD + "        first = x\n" + LOOP.replace("layer(x)", "layer(x + first)") + BUILD,
        "is not handed on from layer to layer",
    ),
    "a dict at a boundary": (ODD.replace("{}", "{'x': x}") + FLAT, "layer 2 (Linear) is given a dict"),
    "None at a boundary": (ODD.replace("{}", "(x, None)") + FLAT, "layer 2 (Linear) is given None"),
    "a shape of the data": (ODD.replace("{}", "x[x[:, 0] > 0]") + FLAT, "whose shape depends on the data"),
    "complex": (ODD.replace("{}", "torch.complex(x, x)") + FLAT, "complex tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(name, tmp_path):
    code, words = MISTAKES[name]
    file = tmp_path / f"model_{abs(hash(name))}.py"
    file.write_text(code)
    with pytest.raises(ModelRefused) as caught:
        look(request(file))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_missing_module_are_named(tmp_path):
    with pytest.raises(ModelRefused, match="there is no file"):
        look(request(tmp_path / "nowhere.py"))
    with pytest.raises(ModelRefused, match="there is no module nowhere_at_all"):
        one = request(Path("x.py"))
        look(replace(one, source=replace(one.source, place="nowhere_at_all")))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tie_word_embeddings": True}, "is shared"),
        ({"no_such_thing": 1}, "a config of llama has no no_such_thing"),
    ],
)
def test_a_config_that_cannot_be_cut_or_has_no_such_key_is_refused(arguments, words):
    pytest.importorskip("transformers")
    with pytest.raises(ModelRefused, match=words):
        look(request(FOLDER / "hf" / "llama.json", arguments=arguments))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot read"),
        ("{}", "has no model_type"),
        ('{"model_type": "of_tomorrow"}', "knows no 'of_tomorrow'"),
        ('{"model_type": "t5"}', "is no decoder"),
    ],
)
def test_a_config_of_another_family_is_refused(text, words, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelRefused, match=words):
        look(request(tmp_path))
