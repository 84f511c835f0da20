"""Predictions in float32, which coder and decoder compute alike on machines of one kind."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sharnn.compression.format1.coder import Frequencies, Symbols, to_frequencies
from sharnn.inference.stepper import Stepper
from sharnn.memory import State
from sharnn.model import SHARNN
from sharnn.weights import canonical_copy

# Chosen on validation text (RUNS.md). The vectors (gains, biases and gates) do not learn: a sharp
# head soon loses what it copies if its gains do.
SEGMENT_LENGTH = 64  # bytes of each stream between two learning steps
LEARNING_RATE = 1.0
LEARNING_RATE_OF_ALL = 0.3  # if the vectors learn too, as in archives of method 2
MAX_GRADIENT_NORM = 1.0  # unusual data must not destroy the weights


class Predictor:
    """Predicts the next byte of each stream from all previous bytes of that stream.

    The first byte of a stream gets a uniform prediction, which costs 8 bits for 256 symbols. Coder
    and decoder make the same calls in turn: `next`, `read`, `next`, `read`, ... Use it inside
    `sharnn.compression.settings.reproducible`.

    Args:
        model: the model; predictions are computed with a float32 copy of it on the CPU.
        num_streams: number of streams.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> from sharnn.compression.settings import reproducible
        >>> with reproducible():
        ...     predictor = Predictor(model, num_streams=2)
        ...     predictor.next().shape
        (2, 256)
    """

    def __init__(self, model: SHARNN, num_streams: int, memory_limit: int | None = None) -> None:
        # Coder and decoder may hold the same weights in different layouts, which round differently.
        self.model = canonical_copy(model)
        self.stepper = Stepper(self.model, num_streams, memory_limit=memory_limit)
        self._logits = self.stepper.embedding.new_zeros(num_streams, model.config.vocab_size)

    def next(self) -> Frequencies:
        """Returns the frequencies of each stream's next byte.

        Returns:
            (streams, vocab_size), see `to_frequencies`.
        """
        return to_frequencies(self._logits)

    def read(self, symbols: Symbols) -> None:
        """Reads the next byte of each stream.

        Args:
            symbols: (streams,).
        """
        self._logits = self.stepper.step(torch.from_numpy(symbols.astype(np.int64)))


class LearningPredictor(Predictor):
    """A predictor that keeps training: after each segment, one step of gradient descent on it.

    At that point the decoder has decoded the same bytes, so it takes the same step.

    Args:
        model, num_streams, memory_limit: as in `Predictor`; it trains the copy of the model.
        only_matrices: train the matrices; False trains the vectors too, at a lower rate.

    Source: Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models"; neural compressors
    such as Bellard's NNCP (2019) train this way from scratch.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> symbol = np.array([65], dtype=np.int32)
        >>> from sharnn.compression.settings import reproducible
        >>> with reproducible():
        ...     predictor = LearningPredictor(model, num_streams=1)
        ...     for _ in range(200):
        ...         predictor.read(symbol)
        ...     int(predictor.next().argmax())
        65
    """

    def __init__(
        self,
        model: SHARNN,
        num_streams: int,
        memory_limit: int | None = None,
        *,
        only_matrices: bool = True,
    ) -> None:
        super().__init__(model, num_streams, memory_limit)
        for weight in self.model.parameters():
            weight.requires_grad_(weight.dim() > 1 or not only_matrices)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        rate = LEARNING_RATE if only_matrices else LEARNING_RATE_OF_ALL
        self.optimizer = torch.optim.SGD(self.weights, rate, foreach=False)
        self.state: State | None = None  # before the current segment
        self.columns: list[Tensor] = []  # bytes of the segment so far, (streams,) each

    def read(self, symbols: Symbols) -> None:
        """Reads the next byte of each stream, and learns if a segment is complete.

        Args:
            symbols: (streams,).
        """
        self.columns.append(torch.from_numpy(symbols.astype(np.int64)))
        if len(self.columns) > SEGMENT_LENGTH:
            self._learn(torch.stack(self.columns, dim=1))  # (streams, segment + 1)
            del self.columns[:-1]
        super().read(symbols)

    def _learn(self, x: Tensor) -> None:
        """Takes one step on a segment: inputs ``x[:, :-1]``, targets ``x[:, 1:]``."""
        memory_limit = self.stepper.memory_limit
        with torch.enable_grad():
            # (streams, segment, vocab_size)
            logits, _ = self.model(x[:, :-1], self.state, memory_limit=memory_limit)
            loss = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())  # nats
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.weights, MAX_GRADIENT_NORM, foreach=False)
        if math.isfinite(norm.item()):  # otherwise the step would destroy the weights
            self.optimizer.step()
        # The state stays as the weights before the step computed it.
        self.state = self.stepper.state()
        self.stepper = Stepper(self.model, len(x), memory_limit=memory_limit)
        self.stepper.load_state(self.state)
