"""The longest match: the byte that followed the last occurrence of the most recent bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sharnn.compression.counts import POWERS
from sharnn.compression.logistic import ONE, STRETCH, Integers

Bytes = npt.NDArray[np.uint8]

MIN_LENGTHS = np.array([20, 7])  # a match begins if so many bytes are equal
WINDOW = 32  # bytes that are compared to find the length of a match when it begins
HASH_BITS = 21
MAX_MISSES = 8  # a match is followed over wrong bytes until so many
MAX_LENGTH = 2**16 - 1
NUM_BUCKETS = 24
# 0 to 15 are buckets of their own, then powers of 2.
BUCKETS = np.array([n if n < 16 else min(11 + n.bit_length(), 23) for n in range(4096)])
# Bits that two bytes have in common at their high end, by their exclusive or.
EQUAL_BITS = np.array([8 - n.bit_length() for n in range(256)])
# Counts are in sixteenths, so that a halved count can be less than one bit.
ONE_COUNT = 16
MAX_COUNT = 4096 * ONE_COUNT


class History:
    """The bytes of all streams so far, step by step.

    Args:
        num_streams: number of streams.

    Example:
        >>> history = History(num_streams=2)
        >>> history.append(np.array([65, 66]))
        >>> history.recent(2).tolist()
        [[65, 0], [66, 0]]
    """

    def __init__(self, num_streams: int) -> None:
        self.num_streams = num_streams
        self.length = WINDOW  # zeros before the first byte
        self.rows = np.zeros((4 * WINDOW, num_streams), dtype=np.uint8)

    def append(self, symbols: Integers) -> None:
        """Appends one byte of each stream, or of the first streams."""
        if self.length == len(self.rows):
            self.rows = np.concatenate((self.rows, np.zeros_like(self.rows)))
        self.rows[self.length, : len(symbols)] = symbols
        self.length += 1

    def recent(self, count: int) -> Bytes:
        """Returns the last bytes of each stream, the latest one first, (streams, count)."""
        return self.rows[self.length - count : self.length][::-1].T

    def at(self, positions: Integers) -> Bytes:
        """Returns bytes at positions; the one at p is followed by the one at p + num_streams."""
        return self.rows.ravel().take(positions)


class Matches:
    """Follows earlier occurrences of the last bytes, in any stream.

    There is one match for each of MIN_LENGTHS. How far it is trusted is counted: for each length
    and number of recent misses, how many of the expected bits were right. All streams share the
    counts and the table of occurrences.

    The calls for each byte are `start`, then `next` for each of its 8 bits, then `finish`.

    Args:
        history: the bytes so far; the caller appends to it after `finish`.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        shape = (history.num_streams, len(MIN_LENGTHS))
        self._table = np.zeros((len(MIN_LENGTHS), 2**HASH_BITS), dtype=np.int64)
        self._positions = np.zeros(shape, dtype=np.int64)  # of the expected bytes; 0 for none
        self._lengths = np.zeros(shape, dtype=np.int64)
        self._misses = np.zeros(shape, dtype=np.int64)
        # The longer the match, the likelier the bit: p = (length + 3) / (length + 4) at first.
        buckets = np.arange(NUM_BUCKETS)[:, None] * (np.arange(MAX_MISSES) == 0)
        right = ONE_COUNT * (3 + np.broadcast_to(buckets, (len(MIN_LENGTHS), *buckets.shape)))
        self._right = right.ravel()  # (kinds of match * buckets * misses,)
        self._wrong = np.full_like(self._right, ONE_COUNT)
        self._first_counter = np.arange(len(MIN_LENGTHS)) * buckets.size

    def start(self, num_streams: int) -> None:
        """Begins a byte: finds new matches where there is none.

        Args:
            num_streams: number of streams that have another byte: all of them, or the first ones.
        """
        self._positions = self._positions[:num_streams]
        self._lengths = self._lengths[:num_streams]
        self._misses = self._misses[:num_streams]
        self._find(self.history.recent(WINDOW)[:num_streams])
        expected = self.history.at(self._positions).astype(np.int64)  # (streams, kinds)
        self._expected = expected + 256
        self._followed = self._positions > 0
        self._buckets = BUCKETS[np.minimum(self._lengths, len(BUCKETS) - 1)]
        self._counters = self._first_counter + self._buckets * MAX_MISSES + self._misses
        right, wrong = self._right[self._counters], self._wrong[self._counters]
        self._strength = STRETCH.take(right * ONE // (right + wrong)) * self._followed

    def _find(self, recent: Bytes) -> None:
        """Looks up the recent bytes, (streams, WINDOW), and remembers where they are."""
        num_streams = len(recent)
        products = (recent.astype(np.uint32) + 1) * POWERS  # (streams, WINDOW)
        sums = np.cumsum(products, axis=1, dtype=np.uint32)
        hashes = sums[:, MIN_LENGTHS - 1] * POWERS[0]  # (streams, kinds)
        hashes = (hashes ^ (hashes >> 15)) * POWERS[1]
        hashes >>= 32 - HASH_BITS
        kinds = np.arange(len(MIN_LENGTHS))
        found = self._table[kinds, hashes]  # (streams, kinds)
        here = self.history.length * self.history.num_streams + np.arange(num_streams)
        # The stream with the highest number counts if several have the same bytes.
        self._table[kinds, hashes] = here[:, None]
        # (streams, kinds, WINDOW): the bytes before the place that was found
        back = self.history.num_streams * np.arange(1, WINDOW + 1)
        equal = self.history.at(np.maximum(found[:, :, None] - back, 0)) == recent[:, None, :]
        lengths = np.logical_and.accumulate(equal, axis=2).sum(axis=2)
        better = (found > 0) & (lengths >= MIN_LENGTHS) & (lengths > self._lengths)
        self._positions = np.where(better, found, self._positions)
        self._lengths = np.where(better, lengths, self._lengths)
        self._misses = np.where(better, 0, self._misses)

    def next(self, nodes: Integers, bit: int) -> tuple[Integers, Integers]:
        """Returns the stretched probabilities of a 1 bit, and the length of the longest match.

        Args:
            nodes: (streams,), 1 and the bits of the byte so far as a binary number.
            bit: number of these bits.

        Returns:
            (streams, kinds), 0 without a match or if the byte already differs from the expected
            one, and the bucket of the longest match, (streams,), 1 to NUM_BUCKETS; 0 without one.
        """
        agrees = (self._expected >> (8 - bit)) == nodes[:, None]
        agrees &= self._followed
        signs = (self._expected >> (7 - bit) & 1) * 2 - 1
        longest = ((self._buckets + 1) * agrees).max(axis=1)
        return self._strength * signs * agrees, longest

    def finish(self, symbols: Integers) -> None:
        """Counts which of the expected bits were right, and follows the matches.

        Args:
            symbols: (streams,).
        """
        differences = (self._expected - 256) ^ symbols[:, None]  # (streams, kinds)
        is_wrong = differences > 0
        counters = self._counters[self._followed]
        np.add.at(self._right, counters, ONE_COUNT * EQUAL_BITS[differences[self._followed]])
        np.add.at(self._wrong, counters, ONE_COUNT * is_wrong[self._followed])
        if (self._right[counters] + self._wrong[counters] > MAX_COUNT).any():
            full = self._right + self._wrong > MAX_COUNT
            self._right[full] >>= 1
            self._wrong[full] = (self._wrong[full] + 1) >> 1
        self._lengths = np.where(is_wrong, 0, np.minimum(self._lengths + 1, MAX_LENGTH))
        # A match of 16 bytes after a miss is as good as a new one.
        self._misses = np.where(self._lengths < 16, self._misses + is_wrong, 0)
        self._followed &= self._misses < MAX_MISSES
        self._positions = (self._positions + self.history.num_streams) * self._followed
        self._lengths *= self._followed
        self._misses *= self._followed
