"""A memory of fixed size in which the newest row takes the oldest one's place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sharnn.errors import InputError

PIECES = 4  # of one stream's rows, so that threads can share them


class Ring:
    """Storage for the newest rows of each stream, in which the newest takes the oldest's place.

    Args:
        batch_size: streams.
        limit: M, the rows it holds.
        like: a tensor of (..., dim) on the wanted device.

    Example:
        >>> ring = Ring(1, 2, torch.zeros(1))
        >>> for value in (1.0, 2.0, 3.0):
        ...     ring.write(torch.tensor([[value]]))
        >>> ring.in_order().flatten().tolist()
        [2.0, 3.0]
    """

    def __init__(self, batch_size: int, limit: int, like: Tensor) -> None:
        self.limit = limit
        size = (batch_size, limit, like.shape[-1])
        self.rows = torch.zeros(size, dtype=torch.float32, device=like.device)
        self.counts = [0] * batch_size  # rows each stream has written so far

    def write(self, rows: Tensor) -> None:
        """Adds one row of each stream, (batch, dim)."""
        if len(set(self.counts)) == 1:
            self.rows[:, self.counts[0] % self.limit] = rows
        else:
            for stream, count in enumerate(self.counts):
                self.rows[stream, count % self.limit] = rows[stream]
        self.counts = [count + 1 for count in self.counts]

    def attend(self, q: Tensor) -> Tensor:
        """The mean of the rows, weighted by softmax(q m').

        Args:
            q: (batch, dim) gated queries, one a stream.

        Returns:
            (batch, dim).
        """
        used = [min(count, self.limit) for count in self.counts]
        most = max(used)
        batch, dim = q.shape
        pieces = PIECES if batch == 1 and most % PIECES == 0 else 1
        rows = self.rows[:, :most].unflatten(1, (pieces, -1)).flatten(0, 1)
        # (batch pieces, rows, dim); a query laid out as a column is what the product is fast with
        columns = q[:, None].expand(-1, pieces, -1).reshape(batch * pieces, 1, dim).mT
        scores = torch.bmm(rows, columns).view(batch, most)
        for stream, count in enumerate(used):
            if count < most:
                scores[stream, count:] = -math.inf
        weights = torch.softmax(scores, dim=1).view(batch * pieces, 1, -1)
        return torch.bmm(weights, rows).view(batch, pieces, dim).sum(1)

    def load(self, rows: Sequence[Tensor]) -> None:
        """Replaces everything.

        Args:
            rows: (streams, rows, dim) each, oldest first; together they are all streams.
        """
        self.counts = []
        for part in rows:
            newest = part[:, -self.limit :]
            start = len(self.counts)
            self.rows[start : start + len(part), : newest.shape[1]] = newest
            self.counts += [newest.shape[1]] * len(part)

    def in_order(self) -> Tensor:
        """The rows, oldest first.

        Returns:
            (batch, rows, dim), in storage of its own.

        Raises:
            InputError: the streams hold different numbers of rows.
        """
        count = self.counts[0]
        if any(min(c, self.limit) != min(count, self.limit) for c in self.counts):
            raise InputError("the streams remember different numbers of rows")
        if count <= self.limit:
            return self.rows[:, :count].clone()
        return torch.stack(
            [
                stream.roll(-(c % self.limit), dims=0)
                for stream, c in zip(self.rows, self.counts, strict=True)
            ]
        )
