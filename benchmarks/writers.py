"""The implementations of writing a byte, behind one interface, and random states."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import sharnn
from benchmarks.plain import PlainState, plain_from, to_plain_state
from sharnn.inference.packed import STORAGES
from sharnn.memory import Memory, State
from sharnn.trainer import Trainer

# "step" is `SHARNN.step`; the others are `sharnn.Stepper` with each of its weight storages.
KINDS = ("plain", "step", *(f"stepper, {storage}" for storage in STORAGES))


def random_state(config: sharnn.ModelConfig, batch: int, rows: int) -> State:
    """Returns a random state, as after reading ``rows`` bytes.

    Args:
        config: the model's configuration.
        batch: number of streams.
        rows: number of rows in each memory.
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


def fill_memory(trainer: Trainer) -> None:
    """Gives a trainer a random state, whose memory the next segment fills.

    It is in the precision of the run, as the memory is after the first segments.
    """
    config, recipe = trainer.model.config, trainer.recipe
    with torch.device(trainer.device):  # random numbers take seconds on a CPU
        state = random_state(config, recipe.batch_size, config.memory - recipe.segment_length)
    trainer.state = state.map(lambda tensor: tensor.to(trainer.dtype))


def writer(kind: str, model: sharnn.SHARNN, state: State) -> Callable[[Tensor], Tensor]:
    """Returns a function that reads one byte of each stream and predicts the next.

    Args:
        kind: one of `KINDS`.
        model: the model, in evaluation mode.
        state: the initial state.

    Returns:
        A function from symbols (batch,) to logits (batch, vocab_size).
    """
    if kind == "plain":
        plain = plain_from(model)
        current: PlainState = to_plain_state(state)

        def step(x: Tensor) -> Tensor:
            nonlocal current
            logits, current = plain(x[:, None], current)
            return logits[:, 0]

        return step
    if kind == "step":

        def step(x: Tensor) -> Tensor:
            nonlocal state
            logits, state = model.step(x, state)
            return logits

        return step
    storage = kind.removeprefix("stepper, ")
    stepper = sharnn.Stepper(model, batch_size=state.batch_size, storage=storage)
    stepper.load_state(state)
    return stepper.step
