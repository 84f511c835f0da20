"""Counts of what followed a context: adaptive probabilities of the next bit in one hash table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sharnn.compression.logistic import ONE, STRETCH, Integers

Hashes = npt.NDArray[np.uint32]  # (streams, contexts)

MAX_ORDER = 6  # the last 0, 1, ... 6 bytes are a context each
NUM_CONTEXTS = MAX_ORDER + 3  # and the word so far, alone and after the word before it
TABLE_BITS = 24  # 2^24 slots of 4 bytes
NODES = 256  # a byte is coded as 8 bits; the bits before the next one are a node from 1 to 255

# A slot has 8 bits that belong to the hash of its context, 8 bits for the number of bits counted,
# and 16 for the probability, whose highest bit is inverted: an empty slot is 1/2.
CHECK_SHIFT = 24
COUNT_SHIFT = 16
HALF = ONE // 2
MAX_COUNT = 127  # the rate does not fall below 1 / 128, so that old bits are forgotten
# The first bit moves the probability from 1/2 by 1 / 1.15 of the way: what was seen once in a
# long context is very likely to follow again.
RATES = 100 * ONE // (100 * np.arange(MAX_COUNT + 1) + 115)  # (MAX_COUNT + 1,)
STORED_STRETCH = STRETCH[np.arange(ONE) ^ HALF]  # of a probability as it is stored

# Odd numbers without a pattern: powers of 2^32 divided by the golden ratio.
GOLDEN = 0x9E3779B1
POWERS = np.array([pow(GOLDEN, k, 2**32) for k in range(1, 33)], dtype=np.uint32)
SALTS = POWERS[-NUM_CONTEXTS:]  # equal bytes of different orders have different hashes


def _letters() -> Hashes:
    """Returns the letter that each byte counts as in a word; 0 if it ends the word."""
    letters = np.zeros(256, dtype=np.uint32)
    for byte in range(256):
        character = chr(byte).lower() if byte < 128 else chr(byte)
        if byte >= 128 or character.isalpha():  # bytes of UTF-8 beyond ASCII are letters
            letters[byte] = ord(character)
    return letters


LETTERS = _letters()


class Counts:
    """Probabilities of the next bit after each of several contexts, counted in the data so far.

    All streams share the table. If two of them update a slot in the same step, the update of the
    stream with the higher number counts. A slot that another context occupies is overwritten.

    The calls for each byte are `start`, then `next` for each of its 8 bits, then `finish`.

    Args:
        num_streams: number of streams.

    Example:
        >>> counts = Counts(num_streams=1)
        >>> recent = np.zeros((1, MAX_ORDER), dtype=np.uint8)
        >>> counts.start(recent)
        >>> [int(value) for value in counts.next(np.array([1]))[0]]
        [0, 0, 0, 0, 0, 0, 0, 0, 0]
    """

    def __init__(self, num_streams: int) -> None:
        self._table = np.zeros(2**TABLE_BITS + NODES, dtype=np.uint32)
        # Hashes of the word so far, 0 between words, and of the word before it.
        self._word = np.zeros(num_streams, dtype=np.uint32)
        self._word_before = np.zeros(num_streams, dtype=np.uint32)
        self._slots: list[Integers] = []  # (streams, contexts) for each bit of the byte
        self._values: list[Hashes] = []

    def start(self, recent: npt.NDArray[np.uint8]) -> None:
        """Begins a byte.

        Args:
            recent: (streams, MAX_ORDER), the last bytes of each stream, the latest one first; zeros
                before the first byte.
        """
        num_streams = len(recent)
        self._read_words(recent[:, 0])
        contexts = np.zeros((num_streams, NUM_CONTEXTS), dtype=np.uint32)
        # hash of order k = sum_(j <= k) (b_j + 1) golden^j, all modulo 2^32
        products = (recent.astype(np.uint32) + 1) * POWERS[:MAX_ORDER]  # (streams, MAX_ORDER)
        contexts[:, 1 : MAX_ORDER + 1] = np.cumsum(products, axis=1, dtype=np.uint32)
        contexts[:, -2] = self._word + recent[:, 0]
        contexts[:, -1] = contexts[:, -2] + self._word_before * POWERS[1]
        # The product carries low bits to the high ones, the shift brings them back.
        contexts = (contexts + SALTS) * POWERS[0]
        contexts = (contexts ^ (contexts >> 15)) * POWERS[1]
        contexts ^= contexts >> 13
        self._first_slots = (contexts >> (32 - TABLE_BITS)).astype(np.int64)
        self._checks = contexts << CHECK_SHIFT

    def _read_words(self, last: npt.NDArray[np.uint8]) -> None:
        """Adds the last byte of each stream, (streams,), to its words."""
        letters = LETTERS[last]
        word, word_before = self._word[: len(last)], self._word_before[: len(last)]
        has_ended = (letters == 0) & (word > 0)
        self._word_before = np.where(has_ended, word, word_before)
        self._word = (word + letters) * POWERS[0] * (letters > 0)

    def next(self, nodes: Integers) -> Integers:
        """Returns the stretched probabilities of a 1 bit; 0 if the context is new.

        Args:
            nodes: (streams,), 1 and the bits of the byte so far as a binary number.

        Returns:
            (streams, contexts).
        """
        slots = self._first_slots + nodes[:, None]  # (streams, contexts)
        values = self._table.take(slots) ^ self._checks
        # A slot of another context differs in the check, so it counts as empty.
        values *= values < (1 << CHECK_SHIFT)
        self._slots.append(slots)
        self._values.append(values)
        return STORED_STRETCH.take(values & (ONE - 1))

    def num_seen(self) -> Integers:
        """Returns how many of the orders from 1 have counted a bit here, (streams,)."""
        return (self._values[-1][:, 1 : MAX_ORDER + 1] > 0).sum(axis=1)

    def finish(self, bits: Integers) -> None:
        """Counts the bits of a byte.

        Args:
            bits: (8, streams).
        """
        values = np.array(self._values, dtype=np.int64)  # (8, streams, contexts)
        counts = values >> COUNT_SHIFT
        p = (values & (ONE - 1)) ^ HALF
        # p += (bit - p) / (count + 1.15)
        p += ((bits[:, :, None] * (ONE - 1) - p) * RATES[counts]) >> 16
        counts = np.minimum(counts + 1, MAX_COUNT)
        self._table[np.array(self._slots)] = (counts << COUNT_SHIFT | (p ^ HALF)) | self._checks
        self._slots.clear()
        self._values.clear()
