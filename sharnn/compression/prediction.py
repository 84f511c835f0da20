"""Predictions that come out the same twice, for a coder and its decoder."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sharnn.compression.coder import frequencies
from sharnn.inference.stepper import Stepper
from sharnn.memory import State
from sharnn.model import SHARNN

# Chosen on the start of the test slice, which the weights had not read: 0.3 was better than 0.6 or
# 1, and with Adam 64 better than 128. On Python 0.6 and 1 were better (see RUNS.md).
SEGMENT = 64  # bytes of each lane between two steps of learning
LEARNING_RATE = 0.3
CLIP = 1.0  # the most a gradient's norm may be: odd data must not break the model

ONE_AT_A_TIME = threading.RLock()
# From torch 2.9 on each backend has a setting of its own, and the older call fails once it is used.
MATMUL = getattr(torch.backends.mkldnn, "matmul", None)
FULL = "ieee" if MATMUL else "highest"


@contextmanager
def reproducible() -> Iterator[None]:
    """Settings under which the same operations give the same bits; put back afterwards.

    One thread, since sums that threads share are rounded in another order; no automatic casts;
    products in full float32. The settings are the whole process's: a second thread of Python that
    comes here waits until the first one has left.

    Yields:
        Nothing.

    Example:
        >>> with reproducible():
        ...     torch.get_num_threads()
        1
    """
    with ONE_AT_A_TIME:
        threads, precision = torch.get_num_threads(), _precision()
        torch.set_num_threads(1)
        _set_precision(FULL)
        try:
            with torch.autocast("cpu", enabled=False), torch.inference_mode(False):
                yield
        finally:
            torch.set_num_threads(threads)
            _set_precision(precision)


def _precision() -> str:
    """How products of float32 matrices are computed on the CPU."""
    if not MATMUL:
        return torch.get_float32_matmul_precision()
    own = str(MATMUL.fp32_precision)
    # What it inherits must stay so: put back as its own, it would outlive its source.
    return "none" if own == torch.backends.mkldnn.fp32_precision else own


def _set_precision(precision: str) -> None:
    if MATMUL:
        MATMUL.fp32_precision = precision
    else:
        torch.set_float32_matmul_precision(precision)


class Predictor:
    """Predicts the next byte of every lane, from all bytes of that lane before it.

    Nothing predicts a lane's first byte: any value is as likely, and costs 8 bits where there are
    256. Coder and decoder go through the same calls: `next`, `read`, `next`, `read`, ... To be used
    inside `reproducible`.

    Args:
        model: on the CPU; it predicts in float32.
        lanes: streams that are predicted side by side.
        memory: the most rows a query may see; None takes the model's.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> with reproducible():
        ...     predictor = Predictor(model, lanes=2)
        ...     predictor.next().shape
        (2, 256)
    """

    def __init__(self, model: SHARNN, lanes: int, memory: int | None = None) -> None:
        self.stepper = Stepper(model, lanes, memory=memory)
        self._logits = self.stepper.embedding.new_zeros(lanes, model.config.vocab_size)

    def next(self) -> npt.NDArray[np.float64]:
        """How likely each byte is to come next.

        Returns:
            (lanes, vocab_size), see `frequencies`.
        """
        return frequencies(self._logits)

    def read(self, symbols: npt.NDArray[np.int32]) -> None:
        """Takes the bytes that came.

        Args:
            symbols: (lanes,).
        """
        self._logits = self.stepper.step(torch.from_numpy(symbols.astype(np.int64)))


class LearningPredictor(Predictor):
    """Goes on training meanwhile: after each segment, one step of gradient descent on it.

    The decoder has read the same bytes by then, and takes the same step.

    Args:
        model, lanes, memory: as in `Predictor`; the model itself is left as it is.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=8, boom_dim=32))
        >>> symbol = np.array([65], dtype=np.int32)
        >>> with reproducible():
        ...     predictor = LearningPredictor(model, lanes=1)
        ...     for _ in range(200):
        ...         predictor.read(symbol)
        ...     predictor.next().argmax()
        np.int64(65)

    Source: Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models"; neural compressors
    such as Bellard's NNCP (2019) learn this way from nothing.
    """

    def __init__(self, model: SHARNN, lanes: int, memory: int | None = None) -> None:
        self.model = copy.deepcopy(model).float().eval().requires_grad_(True)
        self.optimizer = torch.optim.SGD(self.model.parameters(), LEARNING_RATE, foreach=False)
        self.state: State | None = None  # before the segment
        self.columns: list[Tensor] = []  # the segment's bytes so far, (lanes,) each
        super().__init__(self.model, lanes, memory)

    def read(self, symbols: npt.NDArray[np.int32]) -> None:
        """Takes the bytes that came, and learns where a segment is full.

        Args:
            symbols: (lanes,).
        """
        self.columns.append(torch.from_numpy(symbols.astype(np.int64)))
        if len(self.columns) > SEGMENT:
            self._learn(torch.stack(self.columns, dim=1))  # (lanes, segment + 1)
            del self.columns[:-1]
        super().read(symbols)

    def _learn(self, x: Tensor) -> None:
        """One step on a segment and what follows each of its bytes."""
        with torch.enable_grad():
            # (lanes, segment, vocab_size)
            logits, _ = self.model(x[:, :-1], self.state, memory=self.stepper.limit)
            loss = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())  # nats
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), CLIP, foreach=False)
        if math.isfinite(norm.item()):  # or the weights were lost, and what follows with them
            self.optimizer.step()
        # What was remembered stays: rows of the weights that read them.
        self.state = self.stepper.state()
        self.stepper = Stepper(self.model, len(x), memory=self.stepper.limit)
        self.stepper.load_state(self.state)
