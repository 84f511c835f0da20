"""Predictions that coder and decoder compute alike, on every machine."""

from __future__ import annotations

import numpy as np

from sharnn.compression.coder import Frequencies, Symbols, to_frequencies
from sharnn.exact.stepper import ExactStepper
from sharnn.model import SHARNN


class Predictor:
    """Predicts the next byte of each stream from all previous bytes of that stream.

    The first byte of a stream gets a uniform prediction, which costs 8 bits for 256 symbols. Coder
    and decoder make the same calls in turn: `next`, `read`, `next`, `read`, ...

    Args:
        model: the model, on the CPU.
        num_streams: number of streams.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> predictor = Predictor(SHARNN(ModelConfig(dim=8, boom_dim=32)), num_streams=2)
        >>> predictor.next().shape
        (2, 256)
    """

    def __init__(self, model: SHARNN, num_streams: int, memory_limit: int | None = None) -> None:
        self.stepper = ExactStepper(model, num_streams, memory_limit)
        self._logits = np.zeros((num_streams, model.config.vocab_size))

    def next(self) -> Frequencies:
        """Returns the frequencies of each stream's next byte, (streams, vocab_size)."""
        return to_frequencies(self._logits)

    def read(self, symbols: Symbols) -> None:
        """Reads the next byte of each stream.

        Args:
            symbols: (streams,).
        """
        self._logits = self.stepper.step(symbols.astype(np.int64))
