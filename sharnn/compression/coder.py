"""Entropy coding: a model's predictions as whole numbers, and a range coder that takes them."""

from __future__ import annotations

import math

import constriction
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharnn.errors import InputError
from sharnn.model import require_finite

TOTAL = 2**24  # what the frequencies of one prediction sum to: the coder's own precision
OTHERWISE = (
    "this processor or torch rounds otherwise than the one that compressed them, "
    "so decompress there"
)
WORD = 4  # bytes; the coder writes whole words


def frequencies(logits: Tensor) -> npt.NDArray[np.float64]:
    """A prediction as whole numbers, which coder and decoder share to the last bit.

    Every symbol gets at least 1, so that none is impossible, and the likeliest gets what rounding
    leaves over. The cost is less than 0.0001 bits a symbol.

    Args:
        logits: (lanes, vocab_size).

    Returns:
        (lanes, vocab_size) whole numbers, stored as float64; each row sums to 2^24.

    Raises:
        InputError: the logits are not finite.

    Example:
        >>> frequencies(torch.tensor([[0.0, 0.0, -99.0]])).tolist()
        [[8388608.0, 8388607.0, 1.0]]
    """
    require_finite(logits)
    # f = 1 + floor((2^24 - V) softmax(logits))
    spare = TOTAL - logits.shape[1]
    counts = torch.softmax(logits.double(), dim=1).mul_(spare).floor_().add_(1)
    rest = TOTAL - counts.sum(dim=1, keepdim=True)  # (lanes, 1)
    return counts.scatter_add_(1, counts.argmax(dim=1, keepdim=True), rest).numpy()


def bits(
    counts: npt.NDArray[np.float64], symbols: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """What symbols cost that are coded with these frequencies.

    Args:
        counts: (lanes, vocab_size) from `frequencies`.
        symbols: (lanes,).

    Returns:
        (lanes,) bits.

    Example:
        >>> bits(np.array([[2.0**23, 2.0**22, 2.0**22]]), np.array([1], dtype=np.int32))
        array([2.])
    """
    return -np.log2(counts[np.arange(len(symbols)), symbols] / TOTAL)


def most_symbols(code_bytes: int, vocab_size: int) -> int:
    """The most symbols that a code of this size can stand for.

    The others of a vocabulary have at least 1 each, so no symbol is quite free.

    Args:
        code_bytes: size of the code; the coder may leave out its last word.
        vocab_size: V, at least 2.

    Returns:
        Their number.

    Example:
        >>> most_symbols(1, vocab_size=2) > 10**8
        True
    """
    # f <= 2^24 - (V - 1)
    least = -math.log2(1 - (vocab_size - 1) / TOTAL)  # bits
    return math.ceil(8 * (code_bytes + WORD) / least)


class Encoder:
    """Writes symbols, each in about as many bits as its frequency says.

    The range coder is that of `constriction`. It adds 1 to whole numbers that sum to 2^24 - V, so
    it is given each frequency less 1.

    Example:
        >>> encoder = Encoder()
        >>> counts = frequencies(torch.zeros(1, 4))
        >>> for symbol in (3, 0, 2):
        ...     encoder.write(np.array([symbol], dtype=np.int32), counts)
        >>> decoder = Decoder(encoder.to_bytes())
        >>> [int(decoder.read(counts)[0]) for _ in range(3)]
        [3, 0, 2]
    """

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()
        self._family = constriction.stream.model.Categorical(lazy=True, perfect=False)

    def write(self, symbols: npt.NDArray[np.int32], counts: npt.NDArray[np.float64]) -> None:
        """Appends one symbol of each lane.

        Args:
            symbols: (lanes,).
            counts: (lanes, vocab_size) from `frequencies`.
        """
        self._coder.encode(symbols, self._family, counts - 1)

    def to_bytes(self) -> bytes:
        """What was written so far; whole words of 4 bytes, little-endian.

        Returns:
            The bytes.
        """
        return self._coder.get_compressed().astype("<u4").tobytes()


class Decoder:
    """Reads what an `Encoder` wrote, given the same frequencies in the same order.

    Args:
        content: from `Encoder.to_bytes`.

    Raises:
        InputError: it is not a whole number of words.
    """

    def __init__(self, content: bytes) -> None:
        if len(content) % WORD:
            raise InputError(f"coded bytes come in words of {WORD}, got {len(content)} bytes")
        words = np.frombuffer(content, dtype="<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._family = constriction.stream.model.Categorical(lazy=True, perfect=False)

    def read(self, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Reads one symbol of each lane.

        Args:
            counts: (lanes, vocab_size), those that the encoder had.

        Returns:
            Symbols (lanes,). Other frequencies, or other bytes, give other symbols.

        Raises:
            InputError: the code can't come from these frequencies.
        """
        try:
            return self._coder.decode(self._family, counts - 1)
        except AssertionError as error:  # the coder's word for a place where no symbol lies
            raise InputError(f"the code does not fit the predictions: {OTHERWISE}") from error
