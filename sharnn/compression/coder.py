"""Entropy coding: predictions as integer frequencies, and an arithmetic coder that uses them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sharnn.errors import InputError
from sharnn.exact.arithmetic import EXP, Array

Frequencies = npt.NDArray[np.int64]  # (streams, vocab_size)
Symbols = npt.NDArray[np.int32]  # (streams,)

TOTAL = 2**24  # sum of the frequencies of one prediction
WHOLE = 2**48  # width of the first interval
NARROW = 2**40  # a narrower interval is widened by one byte
WORD = 6  # bytes in the first interval


def to_frequencies(logits: Array) -> Frequencies:
    """Converts predictions to integers.

    Every symbol gets a frequency of at least 1, so that it can be coded, and the likeliest symbol
    gets the remainder of the rounding. This costs less than 0.0001 bits per symbol.

    Args:
        logits: (streams, vocab_size).

    Returns:
        (streams, vocab_size); each row sums to 2^24.

    Example:
        >>> to_frequencies(np.array([[0.0, 0.0, -99.0]])).tolist()
        [[8388608, 8388607, 1]]
    """
    # f = 1 + floor((2^24 - V) softmax(logits)),  softmax(logits) = e / sum(e)
    spare = TOTAL - logits.shape[1]
    e = EXP(logits - logits.max(axis=1, keepdims=True))
    frequencies = 1 + np.floor(e * (spare / e.sum(axis=1, keepdims=True))).astype(np.int64)
    rest = TOTAL - frequencies.sum(axis=1)  # (streams,)
    frequencies[np.arange(len(logits)), logits.argmax(axis=1)] += rest
    return frequencies


def code_lengths(frequencies: Frequencies, symbols: Symbols) -> npt.NDArray[np.float64]:
    """Returns the ideal code length of each symbol, (streams,) bits.

    Args:
        frequencies: (streams, vocab_size) from `to_frequencies`.
        symbols: (streams,).

    Example:
        >>> code_lengths(np.array([[2**23, 2**22, 2**22]]), np.array([1], dtype=np.int32))
        array([2.])
    """
    return -np.log2(frequencies[np.arange(len(symbols)), symbols] / TOTAL)


class Encoder:
    r"""Encodes symbols, each in about -log2(frequency / 2^24) bits.

    The code is a number in an interval whose width is the product of all probabilities. All digits
    that are certain are in the code already; the rest of the interval has 48 bits. Its twin in a
    page is `coder.js`, which writes the same code.

    Source: Martin 1979, "Range encoding: an algorithm for removing redundancy from a digitised
    message".

    Example:
        >>> frequencies = to_frequencies(np.zeros((1, 4)))
        >>> encoder = Encoder()
        >>> for symbol in (3, 0, 2):
        ...     encoder.write(np.array([symbol], dtype=np.int32), frequencies)
        >>> encoder.to_bytes()
        b'\xc8'
    """

    def __init__(self) -> None:
        self._low, self._width = 0, WHOLE
        self._code = bytearray()

    def write(self, symbols: Symbols, frequencies: Frequencies) -> None:
        """Appends one symbol of each stream.

        Args:
            symbols: (streams,).
            frequencies: (streams, vocab_size), positive, each row with the sum 2^24.
        """
        for symbol, counts in zip(symbols.tolist(), frequencies, strict=True):
            self._narrow(int(counts[:symbol].sum()), int(counts[symbol]))

    def _narrow(self, before: int, count: int) -> None:
        """Narrows the interval to the piece of a symbol."""
        # low' = low + width (what comes before) / 2^24;  width' = width p
        step = self._width // TOTAL
        self._low += step * before
        self._width = step * count
        self._carry()
        while self._width < NARROW:
            self._code.append(self._low // NARROW)
            self._low = self._low % NARROW * 256
            self._width *= 256

    def _carry(self) -> None:
        """Adds what exceeds 48 bits to the bytes that are in the code."""
        if self._low < WHOLE:
            return
        self._low -= WHOLE
        last = len(self._code) - 1
        while self._code[last] == 255:
            self._code[last] = 0
            last -= 1
        self._code[last] += 1

    def to_bytes(self) -> bytes:
        """Ends the code, and returns the shortest one in the interval if zeros follow it."""
        end, unit = self._low + self._width, WHOLE
        while -(-self._low // unit) * unit >= end:
            unit //= 256
        self._low = -(-self._low // unit) * unit
        self._carry()
        while unit < WHOLE:
            self._code.append(self._low // NARROW)
            self._low = self._low % NARROW * 256
            unit *= 256
        return bytes(self._code).rstrip(b"\0")


class Decoder:
    r"""Decodes the symbols of an `Encoder`, given the same frequencies in the same order.

    Args:
        code: from `Encoder.to_bytes`.

    Example:
        >>> frequencies, decoder = to_frequencies(np.zeros((1, 4))), Decoder(b"\xc8")
        >>> [int(decoder.read(frequencies)[0]) for _ in range(3)]
        [3, 0, 2]
    """

    def __init__(self, code: bytes) -> None:
        self._code, self._next = code, WORD
        self._width = WHOLE
        # Of the coded number from the start of the interval.
        self._offset = int.from_bytes(code[:WORD].ljust(WORD, b"\0"), "big")

    def read(self, frequencies: Frequencies) -> Symbols:
        """Returns the next symbol of each stream, (streams,).

        Args:
            frequencies: (streams, vocab_size), the same as in `Encoder.write`; others give wrong
                symbols.

        Raises:
            InputError: no symbols have this code.
        """
        symbols = np.empty(len(frequencies), dtype=np.int32)
        for stream, counts in enumerate(frequencies):
            ends = counts.cumsum()
            step = self._width // TOTAL
            point = min(TOTAL - 1, self._offset // step)
            symbols[stream] = symbol = int(ends.searchsorted(point, side="right"))
            count = int(counts[symbol])
            self._offset -= step * (int(ends[symbol]) - count)
            self._width = step * count
            if self._offset >= self._width:
                raise InputError("the archive is invalid: its code does not match the predictions")
            while self._width < NARROW:
                self._width *= 256
                self._offset = self._offset * 256 + self._take()
        return symbols

    def _take(self) -> int:
        """Returns the next byte of the code, which zeros follow."""
        byte = self._code[self._next] if self._next < len(self._code) else 0
        self._next += 1
        return byte
