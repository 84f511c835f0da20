"""Entropy coding: predictions as integer frequencies, and a range coder that uses them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharnn.errors import InputError
from sharnn.model import require_finite
from sharnn.optional import import_optional

Frequencies = npt.NDArray[np.float64]  # (streams, vocab_size)
Symbols = npt.NDArray[np.int32]  # (streams,)

TOTAL = 2**24  # sum of the frequencies of one prediction; 24 bits are the coder's precision
WORD_BYTES = 4  # the coder writes whole words
ROUNDING_HINT = (
    "this machine's processor or torch rounds differently from those that compressed the data, "
    "so decompress it there"
)


def import_constriction() -> Any:
    """Imports and returns constriction, which has no build for some machines.

    Raises:
        InputError: it is not installed, or can't be imported.
    """
    return import_optional("constriction", "archives of format 1")


def to_frequencies(logits: Tensor) -> Frequencies:
    """Converts predictions to integers that coder and decoder share to the last bit.

    Every symbol gets a frequency of at least 1, so that it can be coded, and the likeliest symbol
    gets the remainder of the rounding. This costs less than 0.0001 bits per symbol.

    Args:
        logits: (streams, vocab_size).

    Returns:
        (streams, vocab_size) integers, stored as float64; each row sums to 2^24.

    Raises:
        InputError: the logits are not finite.

    Example:
        >>> to_frequencies(torch.tensor([[0.0, 0.0, -99.0]])).tolist()
        [[8388608.0, 8388607.0, 1.0]]
    """
    require_finite(logits)
    # f = 1 + floor((2^24 - V) softmax(logits))
    spare = TOTAL - logits.shape[1]
    frequencies = torch.softmax(logits.double(), dim=1).mul_(spare).floor_().add_(1)
    rest = TOTAL - frequencies.sum(dim=1, keepdim=True)  # (streams, 1)
    likeliest = frequencies.argmax(dim=1, keepdim=True)  # (streams, 1)
    return frequencies.scatter_add_(1, likeliest, rest).numpy()


def max_symbols(code_bytes: int, vocab_size: int) -> int:
    """Returns the maximum number of symbols that a code of the given size can represent.

    It is finite because no symbol is free: each of the others has a frequency of at least 1.

    Args:
        code_bytes: size of the code; the coder may omit its last word.
        vocab_size: V, at least 2.

    Example:
        >>> max_symbols(1, vocab_size=2) > 10**8
        True
    """
    # f <= 2^24 - (V - 1)
    shortest = -math.log2(1 - (vocab_size - 1) / TOTAL)  # bits
    return math.ceil(8 * (code_bytes + WORD_BYTES) / shortest)


class Decoder:
    """Decodes symbols, given the same frequencies in the same order as when they were encoded.

    It wraps the range coder of `constriction`, which adds 1 to integers that sum to 2^24 - V.
    Therefore it receives each frequency minus 1.

    Args:
        code: whole little-endian words of 4 bytes.

    Raises:
        InputError: the size of ``code`` is not a multiple of 4 bytes.
    """

    def __init__(self, code: bytes) -> None:
        if len(code) % WORD_BYTES:
            raise InputError(
                f"the size of the code must be a multiple of {WORD_BYTES} bytes, got {len(code)}"
            )
        words = np.frombuffer(code, dtype="<u4").astype(np.uint32)
        constriction = import_constriction()
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._family = constriction.stream.model.Categorical(lazy=True, perfect=False)

    def read(self, frequencies: Frequencies) -> Symbols:
        """Returns the next symbol of each stream.

        Args:
            frequencies: (streams, vocab_size), see `to_frequencies`; others than those of the
                encoder give wrong symbols.

        Returns:
            (streams,).

        Raises:
            InputError: the code can't be decoded with these frequencies.
        """
        try:
            return self._coder.decode(self._family, frequencies - 1)
        except AssertionError as error:  # raised by constriction if the code is invalid
            raise InputError(f"the code does not match the predictions: {ROUNDING_HINT}") from error
