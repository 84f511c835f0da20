"""A memory of fixed size: each new row overwrites the oldest one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sharnn.errors import InputError

# A single stream's rows are split into chunks so that threads can share them. For one thread that
# would only be slower: PyTorch multiplies one matrix by a vector faster than several.
ROW_CHUNKS = 4


class RingBuffer:
    """The newest M rows of each stream, in storage that is allocated once.

    Once a stream has M rows, each new row overwrites its oldest one. The rows of a full buffer are
    therefore not in order. Attention ignores their order, except that shifted keys are those of
    the rows before.

    Args:
        batch_size: number of streams.
        limit: M, the maximum number of rows per stream.
        like: a tensor (..., dim) that determines the width of the rows and the device.
        shifted_keys: the key of each row is the row before it; the oldest row has none.

    Example:
        >>> ring = RingBuffer(1, 2, torch.zeros(1))
        >>> for value in (1.0, 2.0, 3.0):
        ...     ring.write(torch.tensor([[value]]))
        >>> ring.in_order().flatten().tolist()
        [2.0, 3.0]
    """

    def __init__(
        self, batch_size: int, limit: int, like: Tensor, shifted_keys: bool = False
    ) -> None:
        self.limit, self.shifted_keys = limit, shifted_keys
        size = (batch_size, limit, like.shape[-1])
        self.rows = torch.zeros(size, dtype=torch.float32, device=like.device)
        self.written = [0] * batch_size  # total number of rows written to each stream

    def write(self, rows: Tensor) -> None:
        """Appends one row to each stream.

        Args:
            rows: (batch, dim).
        """
        if len(set(self.written)) == 1:
            self.rows[:, self.written[0] % self.limit] = rows
        else:
            for stream, count in enumerate(self.written):
                self.rows[stream, count % self.limit] = rows[stream]
        self.written = [count + 1 for count in self.written]

    def attend(self, q: Tensor) -> Tensor:
        """Returns softmax(q k') m for each stream, with m the stream's rows and k their keys.

        Args:
            q: (batch, dim) one query per stream, scaled and gated.

        Returns:
            (batch, dim).
        """
        used = [min(count, self.limit) for count in self.written]
        longest = max(used)
        batch, dim = q.shape
        shared = batch == 1 and torch.get_num_threads() > 1 and longest % ROW_CHUNKS == 0
        chunks = ROW_CHUNKS if shared else 1
        rows = self.rows[:, :longest].unflatten(1, (chunks, -1)).flatten(0, 1)
        # rows: (batch chunks, rows, dim). The product is fastest if each query is stored as a
        # column.
        columns = q[:, None].expand(-1, chunks, -1).reshape(batch * chunks, 1, dim).mT
        scores = torch.bmm(rows, columns).view(batch, longest)
        if self.shifted_keys:
            # The score of each row is that of the row written before it; the oldest row's is 0.
            oldest = [count % self.limit if count > self.limit else 0 for count in self.written]
            scores = scores.roll(1, dims=1)
            scores[torch.arange(batch, device=scores.device), oldest] = 0
        for stream, count in enumerate(used):
            if count < longest:
                scores[stream, count:] = -math.inf
        weights = torch.softmax(scores, dim=1).view(batch * chunks, 1, -1)
        return torch.bmm(weights, rows).view(batch, chunks, dim).sum(1)

    def load(self, rows: Sequence[Tensor]) -> None:
        """Replaces the content of all streams.

        Args:
            rows: tensors (streams, rows, dim), oldest row first; together they cover all streams.
                Only the newest M rows of each are kept.
        """
        self.written = []
        for part in rows:
            newest = part[:, -self.limit :]
            start = len(self.written)
            self.rows[start : start + len(part), : newest.shape[1]] = newest
            self.written += [newest.shape[1]] * len(part)

    def in_order(self) -> Tensor:
        """Returns a copy of the rows, (batch, rows, dim), oldest first.

        Raises:
            InputError: the streams hold different numbers of rows.
        """
        used = {min(count, self.limit) for count in self.written}
        if len(used) > 1:
            raise InputError(
                "the streams' memories differ in length, so they can't form one state: "
                "use prompts of equal length"
            )
        if max(self.written) <= self.limit:
            return self.rows[:, : self.written[0]].clone()
        return torch.stack(
            [
                stream.roll(-(count % self.limit), dims=0)
                for stream, count in zip(self.rows, self.written, strict=True)
            ]
        )
