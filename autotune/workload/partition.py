"""Which layers each stage holds. No torch."""


def layers_per_stage(layers: int, stages: int) -> tuple[int, ...]:
    """Cuts ``layers`` into ``stages`` contiguous parts, as even as possible; returns the length of each.

    The remainder goes to the stages that neither embed nor compute the loss while there are any, then to the first
    (embedding is cheap), then to the last::

        layers_per_stage(50, 4) == (12, 13, 13, 12)
        layers_per_stage(51, 4) == (13, 13, 13, 12)
    """
    even, remainder = divmod(layers, stages)
    order = [*range(1, stages - 1), 0, stages - 1]
    extra = set(order[:remainder])
    return tuple(even + (stage in extra) for stage in range(stages))
