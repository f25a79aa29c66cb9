"""A decoder of Hugging Face's transformers as a Workload, from its config alone: random weights, random tokens."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from autotune.workload.gpt import ELEMENT_TYPES
from autotune.workload.user.refusal import ModelRefused, words_of
from autotune.workload.user.source import Source
from autotune.workload.user_model import Given, UserModel, random_tokens


class HuggingFace(UserModel):
    """A causal language model of transformers, cut at the layers of its decoder; every stage runs its own forward."""

    def find_source(self) -> Source:
        """Return what builds the model of the config."""
        try:
            import transformers
        except ImportError:
            raise ModelRefused(
                "it needs transformers where the ranks run, and there is none; "
                f"{sys.executable} -m pip install transformers"
            ) from None
        self.config = self.read_config(transformers)
        if self.request.precision is not None:
            self.config.dtype = ELEMENT_TYPES[self.request.precision]
        dtype = self.config.dtype or torch.float32
        limit = getattr(self.config, "max_position_embeddings", None)
        if limit is not None and self.request.seq_len > limit:
            raise ModelRefused(
                f"{self.path} has {limit} positions, and the sequences have {self.request.seq_len} tokens; lower"
                " --seq-len"
            )

        def build() -> Any:
            return transformers.AutoModelForCausalLM.from_config(self.config, dtype=dtype)  # type: ignore[no-untyped-call]

        self.version = transformers.__version__
        return Source(sys.modules[__name__], build, self.path.name, {})

    @property
    def path(self) -> Path:
        """The config's file."""
        given = Path(self.request.source.place)
        return given / "config.json" if given.is_dir() else given

    def read_config(self, transformers: Any) -> Any:
        """Return the config, with --model-args over it; raise ModelRefused where it is none of a decoder."""
        try:
            values = json.loads(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelRefused(
                f"cannot read {self.path}: {words_of(error)}; give a config.json or its folder"
            ) from None
        kind = values.pop("model_type", None) if isinstance(values, dict) else None
        if kind is None:
            raise ModelRefused(f"{self.path} has no model_type: it is no config of a Hugging Face model")
        if kind not in transformers.CONFIG_MAPPING:
            raise ModelRefused(f"{self.path}: transformers {transformers.__version__} knows no {kind!r}")
        try:
            config = transformers.AutoConfig.for_model(kind, **values)
            for name, value in self.request.arguments.items():
                if not hasattr(config, name):
                    raise ModelRefused(f"--model-args: a config of {kind} has no {name}")
                setattr(config, name, value)
        except ModelRefused:
            raise
        except Exception as error:
            raise ModelRefused(f"{self.path} is no config of {kind}: {words_of(error)}") from error
        if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
            raise ModelRefused(f"{self.path}: {kind} is no decoder of text alone, which is what --model hf: trains")
        return config

    @property
    def digest(self) -> str:
        """Changes with the config, and with the version of transformers."""
        return hashlib.sha256(f"{self.version}\0".encode() + self.path.read_bytes()).hexdigest()[:16]

    def given(self, samples: int, replica: int = 0) -> Given:
        """Return random token ids, and the tokens that follow them."""
        vocabulary = self.config.get_text_config().vocab_size
        args, _, target = random_tokens(vocabulary, samples, self.request.seq_len, self.request.seed)
        return args, {"use_cache": False}, target
