"""Parameters and arithmetic of the built-in GPT, from its sizes alone. No torch."""

from typing import Protocol


class Sizes(Protocol):
    """The sizes of a GPT."""

    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def seq_len(self) -> int: ...
    @property
    def vocab(self) -> int: ...


def parameters(sizes: Sizes) -> int:
    """Return the parameters: 12 h^2 + 13 h in a layer, the two embeddings, the head and the norm before it."""
    hidden = sizes.hidden
    layer = 12 * hidden**2 + 13 * hidden
    return sizes.layers * layer + (2 * sizes.vocab + sizes.seq_len + 2) * hidden


def layer_operations(sizes: Sizes) -> tuple[float, ...]:
    """Return floating-point operations of a forward of one sequence, by layer: 24 h^2 a token in matrix products, 4 s h
    in attention; 2 h V in the language-model head, with the last layer (Narayanan et al. 2021, appendix)."""
    hidden, tokens = sizes.hidden, sizes.seq_len
    layer = float(tokens * (24 * hidden**2 + 4 * tokens * hidden))
    head = float(tokens * 2 * hidden * sizes.vocab)
    return (*([layer] * (sizes.layers - 1)), layer + head)
