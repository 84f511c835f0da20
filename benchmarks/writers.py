"""Ways to write a byte: the only place that knows how each is called."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import sharnn
from benchmarks.plain import PlainState, plain_from, plain_state
from sharnn.inference.packed import WEIGHTS
from sharnn.memory import Memory, State

# "step" is `SHARNN.step`; the others are `sharnn.Stepper` with weights of each format it has.
KINDS = ("plain", "step", *(f"stepper, {weights}" for weights in WEIGHTS))


def random_state(config: sharnn.ModelConfig, batch: int, rows: int) -> State:
    """A past as if so many bytes had been read, without reading them.

    Args:
        config: the model's shape.
        batch: streams.
        rows: rows of each head's memory.

    Returns:
        The state.
    """
    dim, heads = config.dim, config.attention_layers
    return State(
        tuple(
            (0.1 * torch.randn(batch, dim), 0.1 * torch.randn(batch, dim))
            for _ in range(config.layers)
        ),
        tuple(
            Memory(torch.randn(batch, rows, dim)) if i in heads else None
            for i in range(config.layers)
        ),
    )


def writer(kind: str, model: sharnn.SHARNN, state: State) -> Callable[[Tensor], Tensor]:
    """A function that reads one byte of each stream and predicts the next.

    Args:
        kind: one of `KINDS`.
        model: the model.
        state: the past.

    Returns:
        From symbols (batch,) to logits (batch, vocab_size).
    """
    if kind == "plain":
        plain = plain_from(model)
        past: PlainState = plain_state(state)

        def step(x: Tensor) -> Tensor:
            nonlocal past
            logits, past = plain(x[:, None], past)
            return logits[:, 0]

        return step
    if kind == "step":

        def step(x: Tensor) -> Tensor:
            nonlocal state
            logits, state = model.step(x, state)
            return logits

        return step
    weights = kind.removeprefix("stepper, ")
    stepper = sharnn.Stepper(model, batch_size=state.batch_size, weights=weights)
    stepper.load_state(state)
    return stepper.step
