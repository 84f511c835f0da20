"""Recomputing traced predictions with some keys removed from each target's own query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.analysis.trace import AttentionTrace, require_head, segment_bounds, to_symbols
from sharnn.attention import SingleHeadAttention, has_key
from sharnn.errors import InputError
from sharnn.memory import State
from sharnn.model import SHARNN, evaluating
from sharnn.weights import usable

CHUNK = 128  # targets computed at a time: neighbours share nearly all their keys


@dataclass(frozen=True)
class _BlockRecord:
    """The inputs that one block needs to recompute any target, with nothing removed."""

    hidden: Tensor  # (targets, dim) the LSTM's state before each query
    cell: Tensor  # (targets, dim)
    h: Tensor  # (targets, dim) the output of `Block.before_head`
    rows: Tensor | None  # (past + targets, dim) the remembered rows, then each query's own


class Replay:
    """Recomputes the predictions of a trace with some keys removed from each target's query.

    Nothing before the query changes. In one head, the query's softmax leaves out the removed
    keys. The head's new output passes through the rest of that block and the blocks above, whose
    LSTM states and memories are the recorded ones. So the targets are independent of each other,
    and all of them are computed as one batch of single steps. With shifted keys, a removed row
    remains the key of the row after it.

    Args:
        model: the model that was traced.
        trace: the trace.

    Attributes:
        bits: (targets,) float32 bits of each target with nothing removed. They equal the trace's
            up to rounding.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> from sharnn.analysis.trace import trace_attention
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> trace = trace_attention(model, b"hello " * 50, targets=30)
        >>> replay = Replay(model, trace)
        >>> removed = trace.weights[2] > 0.05
        >>> extra = replay.bits_without(2, removed) - replay.bits
        >>> extra.shape
        torch.Size([30])
    """

    def __init__(self, model: SHARNN, trace: AttentionTrace) -> None:
        model = usable(model)
        self.model, self.trace = model, trace
        text = np.frombuffer(trace.text, dtype=np.uint8)
        with evaluating(model):
            state = self._past(text)
            self._past_rows = state.memory_rows if state else 0
            x = to_symbols(model, text[trace.first - 1 :])  # (targets + 1,)
            self._symbols = x[1:]  # (targets,) the targets themselves
            self._num_visible = trace.num_visible.to(x.device)
            self._records: list[_BlockRecord] = []
            h = model.embedding(x[:-1])  # (targets, dim)
            for i in range(model.config.layers):
                record = self._record(i, h, state)
                self._records.append(record)
                h = torch.cat(
                    [
                        self._after_lstm(i, record.h[chunk], chunk)
                        for chunk in torch.arange(len(h)).split(CHUNK)
                    ]
                )
            self.bits = _bits(model.output(h), self._symbols)

    def bits_without(
        self, block: int, removed: Tensor, targets: slice | Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Returns the bits of targets whose queries can't attend to the removed keys.

        Args:
            block: the block whose head can't attend to them.
            removed: (targets, memory) booleans by distance, True for a removed key; (memory,) or
                (1, memory) applies to every target. If all keys of a query are removed, the head
                adds nothing.
            targets: the targets to compute: a slice or indices, counted from 0. ``removed`` then
                has one mask for each of these. None for all targets.

        Returns:
            (targets,) float32 bits.

        Raises:
            InputError: the block has no head, the mask has the wrong shape or dtype, or
                ``targets`` selects no byte.
        """
        chosen, logits = self._logits_without(block, removed, targets)
        return _bits(logits, self._symbols[chosen.to(logits.device)])

    def probabilities_without(
        self, block: int, removed: Tensor, targets: slice | Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Returns the predictions of queries that can't attend to the removed keys.

        Args:
            block, removed, targets: see `bits_without`.

        Returns:
            (targets, vocab_size) the probability of every symbol.

        Raises:
            InputError: see `bits_without`.
        """
        _, logits = self._logits_without(block, removed, targets)
        return logits.float().softmax(-1).cpu()

    def _logits_without(
        self, block: int, removed: Tensor, targets: slice | Sequence[int] | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the indices (chosen,) of the targets and their logits (chosen, vocab_size)."""
        require_head(self.model, block)
        chosen = torch.arange(self.trace.num_targets)
        if targets is not None:
            chosen = chosen[targets]
        if len(chosen) == 0:
            raise InputError("targets selects no byte: give at least one index")
        shape = (len(chosen), self.trace.memory_limit)
        if removed.dtype != torch.bool or removed.shape not in (shape, (1, shape[1]), shape[1:]):
            raise InputError(
                f"removed must be booleans of shape {shape}, "
                f"got {removed.dtype} of shape {tuple(removed.shape)}"
            )
        removed = removed.expand(shape)
        parts = []
        with evaluating(self.model):
            for index in torch.arange(len(chosen)).split(CHUNK):
                h = self._above(block, chosen[index], removed[index])
                parts.append(self.model.output(h))
        return chosen, torch.cat(parts)

    def _above(self, block: int, chosen: Tensor, removed: Tensor) -> Tensor:
        """Returns the last block's output (chosen, dim) without the removed keys of ``block``."""
        h = self._after_lstm(block, self._records[block].h[chosen], chosen, removed)
        for i in range(block + 1, self.model.config.layers):
            record = self._records[i]
            # One step of a batch with one stream per chosen target, each with its own state.
            before = record.hidden[chosen], record.cell[chosen]
            h, _ = self.model.blocks[i].before_head(h[:, None], before)  # (chosen, 1, dim)
            h = self._after_lstm(i, h[:, 0], chosen)
        return h

    def _after_lstm(
        self, i: int, h: Tensor, chosen: Tensor, removed: Tensor | None = None
    ) -> Tensor:
        """Computes the rest of block i from its LSTM's output for the chosen targets.

        Args:
            i: the block.
            h: (chosen, dim) the output of `Block.before_head`.
            chosen: (chosen,) indices of the targets.
            removed: (chosen, memory) keys that the head can't attend to; None for none.

        Returns:
            The block's output (chosen, dim).
        """
        block, remembered = self.model.blocks[i], self._records[i].rows
        if block.head is not None and remembered is not None:
            m = block.memory_norm(h)  # (chosen, dim)
            h = block.middle_norm(h)
            h = h + self._attend(block.head, h, m, remembered, chosen, removed)
        return block.after_head(h)

    def _attend(
        self,
        head: SingleHeadAttention,
        h: Tensor,
        m: Tensor,
        remembered: Tensor,
        chosen: Tensor,
        removed: Tensor | None,
    ) -> Tensor:
        """Computes a head's output for the chosen targets, each a single query with its own past.

        Args:
            head: the head.
            h: (chosen, dim) the input of the queries.
            m: (chosen, dim) each query's own row, which may differ from the recorded one.
            remembered: (past + targets, dim) the recorded rows.
            chosen, removed: see `_after_lstm`.

        Returns:
            The head's output (chosen, dim).
        """
        own = self._past_rows + chosen  # (chosen,) index of each query's own row
        start = max(0, int(own.min()) - self.trace.memory_limit + 1)
        rows = remembered[start : int(own.max()) + 1]  # (keys, dim)
        # (chosen, keys) columns of a mask by distance; 0 is the query's own row
        column = (own[:, None] - torch.arange(start, start + len(rows))).to(h.device)
        itself = column == 0
        mask = (column >= 0) & (column < self._num_visible[chosen][:, None])
        q = head.scaled_query(h)  # (chosen, dim)
        scores = torch.where(itself, (q * m).sum(-1, keepdim=True), q @ rows.T)
        if head.shifted_keys:
            scores = F.pad(scores[:, :-1], (1, 0)).masked_fill(~has_key(mask), 0)
        if removed is not None:
            inside = column.clamp(0, self.trace.memory_limit - 1)
            mask = mask & ~removed.to(h.device).gather(1, inside)
        # A softmax over no keys is NaN. Such a query attends to nothing.
        weights = torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1).masked_fill(~mask, 0)
        own_weight = (weights * itself).sum(-1, keepdim=True)  # (chosen, 1)
        output = weights.masked_fill(itself, 0) @ rows + own_weight * m
        return output * head.static_value_gate()

    def _past(self, text: np.ndarray[Any, np.dtype[np.uint8]]) -> State | None:
        """Returns the state before the first target's query; None if nothing precedes it."""
        trace, state = self.trace, None
        for start, stop in segment_bounds(trace.first, len(text), trace.segment_length):
            if stop < trace.first:
                x = to_symbols(self.model, text[start:stop])
                _, state = self.model(x[None], state, memory_limit=trace.memory_limit)
        return state

    def _record(self, i: int, h: Tensor, state: State | None) -> _BlockRecord:
        """Steps the LSTM of block i through its inputs h (targets, dim)."""
        block = self.model.blocks[i]
        zeros = torch.zeros_like(h[:1])  # (1, dim)
        before = state.lstm[i] if state else (zeros, zeros)
        states, outputs = [], []
        for one in h.split(1):
            states.append(before)
            output, before = block.before_head(one[None], before)  # (1, 1, dim)
            outputs.append(output[0])
        hidden, cell = (torch.cat(parts) for parts in zip(*states, strict=True))
        after_lstm = torch.cat(outputs)  # (targets, dim)
        if block.head is None:
            return _BlockRecord(hidden, cell, after_lstm, None)
        rows = block.memory_norm(after_lstm)
        memory = state.memory[i] if state else None
        if memory is not None:
            rows = torch.cat([memory.rows[0], rows])  # (past + targets, dim)
        return _BlockRecord(hidden, cell, after_lstm, rows)


def _bits(logits: Tensor, symbols: Tensor) -> Tensor:
    """Returns the bits (targets,) of the symbols (targets,) under logits (targets, vocab_size)."""
    nats = F.cross_entropy(logits.float(), symbols, reduction="none")
    return (nats / math.log(2)).cpu()
