"""Floating point operations of a training step, counted from the shapes of its products."""

from __future__ import annotations

import sharnn


def training_flops(config: sharnn.ModelConfig, batch: int, time: int, memory: int) -> int:
    """Operations of one step, 2 for each multiply-add; what is done element by element is free.

    A product of weights costs one product forward and two backward: for its input and for its
    weights. Scores and reading are two products forward. The segment's own rows want a gradient
    in both of their places, so they cost four backward; remembered rows want none, and cost two.

    Args:
        config: the model's shape.
        batch: streams.
        time: bytes of each stream.
        memory: remembered rows that the head sees beside the segment.

    Returns:
        The operations.
    """
    dim, positions = config.dim, batch * time
    lstm = 2 * (2 * positions * dim * 4 * dim)  # of the input and of the hidden vector
    boom = 2 * positions * dim * config.boom_dim
    output = 2 * positions * dim * config.vocab_size
    query = 2 * positions * dim * dim
    weights = config.layers * (lstm + boom) + config.head_count * query + output
    rows = 2 * positions * dim  # scores of one row, or reading it
    head = (2 + 2) * memory * rows + (2 + 4) * time * rows
    return 3 * weights + config.head_count * head
