"""The predictions of a reading made again, each with some keys hidden from its own query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.analysis.trace import Reading, reading_cuts, symbols
from sharnn.errors import InputError
from sharnn.memory import State
from sharnn.model import SHARNN, Block, evaluating

CHUNK = 128  # watched bytes computed at a time: neighbours share nearly all their keys


@dataclass(frozen=True)
class _BlockRecord:
    """What one block held when it was asked for each watched byte, with nothing removed."""

    hidden: Tensor  # (watched, dim) the LSTM's state before each query
    cell: Tensor  # (watched, dim)
    h: Tensor  # (watched, dim) what the LSTM gave
    rows: Tensor | None  # (past + watched, dim) the rows remembered before, then each query's own


class Replay:
    """Makes the predictions of a reading again, each with some keys hidden from its own query.

    Nothing that was read earlier changes: one query's softmax in one head goes without the removed
    keys, and the new output of the head passes through the rest of that block and the blocks above,
    whose LSTMs and memories are as they were before this byte. So every watched byte is a question
    of its own, and all of them are computed as a batch of single steps.

    Args:
        model: the model that made the reading.
        reading: the reading.

    Attributes:
        bits: (watched,) float32 bits of each watched byte with nothing removed; those of the
            reading up to rounding.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> from sharnn.analysis.trace import read
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> reading = read(model, b"hello " * 50, watched=30)
        >>> replay = Replay(model, reading)
        >>> removed = reading.weights[2] > 0.05
        >>> lost = replay.bits_without(2, removed) - replay.bits
        >>> lost.shape
        torch.Size([30])
    """

    def __init__(self, model: SHARNN, reading: Reading) -> None:
        self.model, self.reading = model, reading
        text = np.frombuffer(reading.text, dtype=np.uint8)
        with evaluating(model):
            state = self._past(text)
            self._past_rows = state.memory_rows if state else 0
            x = symbols(model, text[reading.first - 1 :])  # (watched + 1,)
            self._targets = x[1:]
            self._visible = reading.visible.to(x.device)
            self._records: list[_BlockRecord] = []
            h = model.embedding(x[:-1])  # (watched, dim)
            for i in range(model.config.layers):
                record = self._record(i, h, state)
                self._records.append(record)
                h = torch.cat(
                    [
                        self._after_lstm(i, record.h[chunk], chunk)
                        for chunk in torch.arange(len(h)).split(CHUNK)
                    ]
                )
            self.bits = _bits(model.output(h), self._targets)

    def bits_without(
        self, block: int, removed: Tensor, rows: slice | Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """The bits of watched bytes whose queries can't see the removed keys.

        Args:
            block: whose head can't see them.
            removed: (watched, memory) booleans by distance, True for a removed key, or one row for
                all. A query whose keys are all removed adds nothing in that head.
            rows: which watched bytes to compute, as an index into the reading's rows; ``removed``
                then has a row for each of these. None for all.

        Returns:
            (watched,) float32 bits, or as many as ``rows`` names.

        Raises:
            InputError: the block has no head, the mask has another shape, or ``rows`` is empty.
        """
        chosen, logits = self._logits_without(block, removed, rows)
        return _bits(logits, self._targets[chosen.to(logits.device)])

    def probabilities_without(
        self, block: int, removed: Tensor, rows: slice | Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """The predictions of queries that can't see the removed keys.

        Args:
            block, removed, rows: as in `bits_without`.

        Returns:
            (watched, vocab_size) probabilities of every symbol, or as many rows as ``rows`` names.

        Raises:
            InputError: as `bits_without`.
        """
        _, logits = self._logits_without(block, removed, rows)
        return logits.float().softmax(-1).cpu()

    def _logits_without(
        self, block: int, removed: Tensor, rows: slice | Sequence[int] | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Which watched bytes are meant, and their (rows, vocab_size) logits."""
        heads = self.model.config.attention_layers
        if block not in heads:
            raise InputError(f"block {block} has no head, blocks {heads} have")
        chosen = torch.arange(self.reading.watched)
        if rows is not None:
            chosen = chosen[rows]
        if len(chosen) == 0:
            raise InputError("rows names no watched byte")
        shape = (len(chosen), self.reading.memory)
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
        """(chosen, dim) the last block's output when ``block`` can't see the removed keys."""
        h = self._after_lstm(block, self._records[block].h[chosen], chosen, removed)
        for i in range(block + 1, self.model.config.layers):
            record = self._records[i]
            # One step of as many streams as there are chosen bytes, each with its own state.
            before = record.hidden[chosen], record.cell[chosen]
            h, _ = self._block(i).before_head(h[:, None], before)  # (chosen, 1, dim)
            h = self._after_lstm(i, h[:, 0], chosen)
        return h

    def _after_lstm(
        self, i: int, h: Tensor, chosen: Tensor, removed: Tensor | None = None
    ) -> Tensor:
        """Takes what the LSTM of block i gave for the chosen bytes through the rest of the block.

        Args:
            i: the block.
            h: (chosen, dim).
            chosen: (chosen,) which watched bytes.
            removed: (chosen, memory) keys that the head can't see; None for none.

        Returns:
            The block's output (chosen, dim).
        """
        block, remembered = self._block(i), self._records[i].rows
        if block.head is not None and remembered is not None:
            # The head takes all chosen bytes as one segment. Its mask lets each see the
            # remembered rows before its own as they were, and of the segment its own row only.
            own = self._past_rows + chosen  # (chosen,) index of each query's own row
            start = max(0, int(own.min()) - self.reading.memory + 1)
            stop = int(own.max())
            column = (own[:, None] - torch.arange(start, stop)).to(h.device)  # 0 is its own row
            earlier = (column >= 1) & (column < self._visible[chosen][:, None])
            itself = torch.eye(len(chosen), dtype=torch.bool, device=h.device)
            if removed is not None:
                removed = removed.to(h.device)
                inside = column.clamp(0, self.reading.memory - 1)
                earlier &= ~removed.gather(1, inside)
                itself &= ~removed[:, :1]
            seen = torch.cat([earlier, itself], dim=1)  # (chosen, keys + chosen)
            read, _ = block.head(
                block.middle_norm(h)[None],
                block.memory_norm(h)[None],
                remembered[None, start:stop],
                seen,
            )
            # The softmax over no keys at all is not a number: such a query reads nothing.
            read = read[0].masked_fill(~seen.any(-1, keepdim=True), 0)
            h = block.middle_norm(h) + read
        return block.after_head(h)

    def _past(self, text: np.ndarray[Any, np.dtype[np.uint8]]) -> State | None:
        """The state before the first watched byte's query, None where nothing was read before."""
        reading, state = self.reading, None
        for start, stop in reading_cuts(reading.first, len(text), reading.segment_length):
            if stop < reading.first:
                x = symbols(self.model, text[start:stop])
                _, state = self.model(x[None], state, memory=reading.memory)
        return state

    def _record(self, i: int, h: Tensor, state: State | None) -> _BlockRecord:
        """Steps the LSTM of block i through its inputs h (watched, dim)."""
        block = self._block(i)
        zeros = torch.zeros_like(h[:1])  # (1, dim)
        before = state.lstm[i] if state else (zeros, zeros)
        states, outputs = [], []
        for one in h.split(1):
            states.append(before)
            output, before = block.before_head(one[None], before)  # (1, 1, dim)
            outputs.append(output[0])
        hidden, cell = (torch.cat(parts) for parts in zip(*states, strict=True))
        after_lstm = torch.cat(outputs)  # (watched, dim)
        if block.head is None:
            return _BlockRecord(hidden, cell, after_lstm, None)
        rows = block.memory_norm(after_lstm)
        memory = state.memory[i] if state else None
        if memory is not None:
            rows = torch.cat([memory.rows[0], rows])  # (past + watched, dim)
        return _BlockRecord(hidden, cell, after_lstm, rows)

    def _block(self, i: int) -> Block:
        return cast(Block, self.model.blocks[i])


def _bits(logits: Tensor, targets: Tensor) -> Tensor:
    """(rows,) bits of the targets (rows,) under the logits (rows, vocab_size)."""
    nats = F.cross_entropy(logits.float(), targets, reduction="none")
    return (nats / math.log(2)).cpu()
