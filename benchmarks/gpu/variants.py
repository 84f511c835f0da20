"""Other ways to compute the same training step, to compare with the library's."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sharnn
from sharnn.attention import SingleHeadAttention
from sharnn.model import Block


def attend_fused(
    self: SingleHeadAttention, h: Tensor, m: Tensor, past: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`SingleHeadAttention.forward` by `scaled_dot_product_attention`, without the weights.

    The kernels for long memories take no head of width 1024 but the memory-efficient one, which
    needs queries, keys and values side by side, so memory and segment are concatenated.

    Returns:
        The output (batch, time, dim), and an empty tensor in place of the weights.
    """
    q = self.scaled_query(h)  # (batch, time, dim)
    rows = m if past is None else torch.cat([past.to(m.dtype), m], dim=1)
    p = self.dropout.p if self.training else 0.0
    output = F.scaled_dot_product_attention(
        q[:, None],  # one head: (batch, 1, time, dim)
        rows[:, None],
        self.dropout(rows)[:, None],
        attn_mask=mask,
        dropout_p=p,
        scale=1.0,  # it is part of the query
    )
    return output[:, 0] * self.static_value_gate(), h.new_empty(0)


def with_fused_attention(model: sharnn.SHARNN) -> sharnn.SHARNN:
    """Makes every head of a model use `attend_fused`, and returns the model.

    Raises:
        sharnn.InputError: the model has shifted keys, whose oldest row has no key.
    """
    for head in heads_of(model):
        if head.shifted_keys:
            raise sharnn.InputError("fused attention has no shifted keys")
        head.forward = types.MethodType(attend_fused, head)  # type: ignore[method-assign]
    return model


def compiled(model: sharnn.SHARNN, backend: str) -> sharnn.SHARNN:
    """Compiles all of a model but its LSTMs, which torch.compile can't trace, and returns it.

    Args:
        model: the model.
        backend: of torch.compile: ``"inductor"`` generates kernels, ``"eager"`` only traces.
    """
    for block in blocks_of(model):
        block.after_head = compile_(block.after_head, backend)  # type: ignore[method-assign]
        if block.head is not None:
            block.head.forward = compile_(block.head.forward, backend)  # type: ignore[method-assign]
    return model


def compile_(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Compiles a function for one shape of its arguments at a time."""
    return torch.compile(function, backend=backend, dynamic=False)


def blocks_of(model: sharnn.SHARNN) -> list[Block]:
    """Returns the blocks of a model."""
    return [block for block in model.blocks if isinstance(block, Block)]


def heads_of(model: nn.Module) -> list[SingleHeadAttention]:
    """Returns the heads of a model."""
    return [module for module in model.modules() if isinstance(module, SingleHeadAttention)]
