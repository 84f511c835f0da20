"""Floating point operations of a training step, from the shapes of its matrix products."""

from __future__ import annotations

import sharnn


def training_flops(config: sharnn.ModelConfig, batch: int, time: int, memory: int) -> int:
    """Returns the operations of one training step.

    A multiply-add counts as 2 operations; elementwise operations are not counted. A product with
    parameters costs one product forward and two backward, one for the gradient of its input and
    one for that of its parameters. Attention takes two products forward, for the scores and for
    the weighted sum. The segment's own rows need gradients as keys and as values, so they cost
    four products backward; remembered rows need none and cost two.

    Args:
        config: the model's configuration.
        batch: number of streams.
        time: number of bytes of each stream.
        memory: number of remembered rows that precede the segment.
    """
    dim, positions = config.dim, batch * time
    lstm = 2 * (2 * positions * dim * 4 * dim)  # input and hidden state
    boom = 2 * positions * dim * config.boom_dim
    output = 2 * positions * dim * config.vocab_size
    query = 2 * positions * dim * dim
    parameters = config.layers * (lstm + boom) + config.head_count * query + output
    row = 2 * positions * dim  # the scores of one row, or its part in the weighted sum
    head = (2 + 2) * memory * row + (2 + 4) * time * row
    return 3 * parameters + config.head_count * head
