"""Which layers each stage holds, and which rank holds the stage. No torch."""

from collections.abc import Sequence


def layers_per_stage(layers: int, stages: int) -> tuple[int, ...]:
    """Cut ``layers`` into ``stages`` contiguous parts, as even as possible; return the length of each.

    The remainder goes to the stages that neither embed nor compute the loss while there are any, then to the first
    (embedding is cheap), then to the last::

        layers_per_stage(50, 4) == (12, 13, 13, 12)
        layers_per_stage(51, 4) == (13, 13, 13, 12)
    """
    even, remainder = divmod(layers, stages)
    order = [*range(1, stages - 1), 0, stages - 1]
    extra = set(order[:remainder])
    return tuple(even + (stage in extra) for stage in range(stages))


def layers_of_stage(layers: int, stages: int, index: int, split: Sequence[int] | None = None) -> range:
    """Return the layers of stage ``index`` where the model is cut as ``split`` says, or ``layers_per_stage``."""
    counts = split or layers_per_stage(layers, stages)
    assert (len(counts), sum(counts)) == (stages, layers), "a cut holds every layer, and a stage for each"
    first = sum(counts[:index])
    return range(first, first + counts[index])


def stage_ranks(ranks: int, virtual_stages: int, v_shaped: bool) -> tuple[int, ...]:
    """Return the rank of every stage: round and round in a loop, or ``v_shaped``, down the ranks and back up, as torch
    has it.

    ::

        stage_ranks(3, 2, v_shaped=False) == (0, 1, 2, 0, 1, 2)
        stage_ranks(3, 2, v_shaped=True) == (0, 1, 2, 2, 1, 0)
    """
    down = tuple(range(ranks))
    turns = [down if turn % 2 == 0 or not v_shaped else down[::-1] for turn in range(virtual_stages)]
    return tuple(rank for turn in turns for rank in turn)
