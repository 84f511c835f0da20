"""A head's memory as 8-bit integers: each new row overwrites the oldest one."""

from __future__ import annotations

import numpy as np

from sharnn.exact.arithmetic import EXP, Array, quantise
from sharnn.exact.products import LARGEST, Integers, multiply, storage

# The weights of a query as whole numbers. Their sum times 127 stays below 2^24 for up to 100,000
# rows, so that float32 adds the weighted rows without rounding.
WEIGHTS_TOTAL = 2.0**16
MAX_ROWS = 100_000


class IntegerRing:
    """The newest M rows of each stream, of which all have read the same number of bytes.

    Args:
        num_streams: number of streams.
        limit: M, the maximum number of rows per stream.
        dim: width of the rows.
        shifted_keys: the key of each row is the row before it; the oldest row has none.

    Example:
        >>> ring = IntegerRing(1, limit=2, dim=1)
        >>> for value in (1.0, 2.0, 3.0):
        ...     ring.write(np.array([[value]]))
        >>> ring.attend(np.array([[0.0]])).round(3).tolist()
        [[2.5]]
    """

    def __init__(
        self, num_streams: int, limit: int, dim: int, *, shifted_keys: bool = False
    ) -> None:
        self.limit, self.shifted_keys = limit, shifted_keys
        self.rows: Integers = np.zeros((num_streams, limit, dim), dtype=storage())
        self.scales = np.zeros((num_streams, limit))
        self.written = 0

    def write(self, rows: Array) -> None:
        """Appends one row to each stream.

        Args:
            rows: (streams, dim).
        """
        p, a = quantise(rows, LARGEST)
        place = self.written % self.limit
        self.rows[:, place], self.scales[:, place] = p, a[:, 0]
        self.written += 1

    def load(self, rows: Array) -> None:
        """Replaces the content of all streams.

        Args:
            rows: (rows, dim), oldest row first, for each of them; only the newest M are kept.
        """
        p, a = quantise(rows[-self.limit :], LARGEST)
        self.written = len(p)
        self.rows[:, : len(p)], self.scales[:, : len(p)] = p, a[:, 0]

    def attend(self, q: Array) -> Array:
        """Returns softmax(q k') m for each stream, with m the stream's rows and k their keys.

        Args:
            q: (streams, dim) one query per stream, scaled and gated.

        Returns:
            (streams, dim).
        """
        used = min(self.written, self.limit)
        rows, scales = self.rows[:, :used], self.scales[:, :used]
        # q k' = a s (p r)  with q = a p and k = s r
        p, a = quantise(q, LARGEST)
        p = p.astype(rows.dtype)
        products = [multiply(r, one.reshape(-1, 1))[:, 0] for r, one in zip(rows, p, strict=True)]
        scores = np.stack(products) * a * scales  # (streams, rows)
        if self.shifted_keys:
            scores = np.roll(scores, 1, axis=1)
            scores[:, self.written % self.limit if self.written > self.limit else 0] = 0
        # softmax(q k') = e / sum(e), e = exp(q k' - max)
        e = EXP(scores - scores.max(axis=1, keepdims=True))
        # (e / sum) m = (s / 2^16) (w r)  with w = 2^16 (e / sum) (s_row / s), and s the largest
        largest = scales.max(axis=1, keepdims=True)
        weights = np.rint(e * (WEIGHTS_TOTAL / e.sum(axis=1, keepdims=True)) * (scales / largest))
        mixed = [self._mix(w, r) for w, r in zip(weights, rows, strict=True)]
        return np.stack(mixed) * (largest / WEIGHTS_TOTAL)

    @staticmethod
    def _mix(weights: Array, rows: Integers) -> Array:
        """Returns the sum of the rows (rows, dim), each times its weight."""
        seen = np.flatnonzero(weights)  # few: a sharp head looks at some dozens of rows
        kind = np.result_type(rows, np.float32)
        return np.asarray(weights[seen].astype(kind) @ rows[seen].astype(kind))
