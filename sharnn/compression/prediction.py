"""Predictions that coder and decoder compute alike, on every machine."""

from __future__ import annotations

import numpy as np

from sharnn.compression.coder import Frequencies, Symbols, to_frequencies
from sharnn.exact.learning import LearningStepper
from sharnn.exact.stepper import ExactStepper
from sharnn.model import SHARNN

SEGMENT_LENGTH = 64  # bytes of each stream between two learning steps


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

    kind = ExactStepper

    def __init__(self, model: SHARNN, num_streams: int, memory_limit: int | None = None) -> None:
        self.stepper = self.kind(model, num_streams, memory_limit)
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


class LearningPredictor(Predictor):
    """A predictor that keeps training: after each segment, one step of gradient descent on it.

    At that point the decoder has decoded the same bytes, so it takes the same step. Only the
    matrices learn (see `sharnn.exact.learning.LearningStepper`): a sharp head soon loses what it
    copies if gains and gates do.

    Args:
        model, num_streams, memory_limit: as in `Predictor`; the model does not change.

    Source: Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models"; neural compressors
    such as Bellard's NNCP (2019) train this way from scratch.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> predictor = LearningPredictor(SHARNN(ModelConfig(dim=8, boom_dim=32)), num_streams=1)
        >>> for _ in range(200):
        ...     predictor.read(np.array([65], dtype=np.int32))
        >>> int(predictor.next().argmax())
        65
    """

    kind = LearningStepper
    stepper: LearningStepper

    def __init__(self, model: SHARNN, num_streams: int, memory_limit: int | None = None) -> None:
        super().__init__(model, num_streams, memory_limit)
        self._steps = 0  # since the last learning step

    def read(self, symbols: Symbols) -> None:
        """Reads the next byte of each stream, and learns if a segment is complete.

        Args:
            symbols: (streams,).
        """
        if self._steps == SEGMENT_LENGTH:
            self.stepper.learn(symbols.astype(np.int64))
            self._steps = 0
        self._steps += 1
        super().read(symbols)
