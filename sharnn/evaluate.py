"""How well a model predicts bytes it has not seen, in bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.data import as_bytes
from sharnn.distributed import Ranks
from sharnn.errors import InputError
from sharnn.model import SHARNN, evaluating, require_symbols


def default_batch_size(size: int) -> int:
    """Streams for scoring so many bytes: one for each 100,000, at least 1 and at most 8.

    Each stream starts without a past, which costs bits; the paper scores its test set in 8.

    Args:
        size: bytes to score.

    Returns:
        The number of streams.

    Example:
        >>> default_batch_size(5_000_000), default_batch_size(1000)
        (8, 1)
    """
    return max(1, min(8, size // 100_000))


def bits_per_byte(
    model: SHARNN,
    data: Any,
    *,
    batch_size: int | None = None,
    segment_length: int | None = None,
    memory: int | None = None,
    ranks: Ranks | None = None,
) -> float:
    """The mean number of bits the model needs for a byte, given all bytes before it.

    The data are cut into contiguous streams that are read segment by segment; LSTM state and
    memory are carried. Every byte is scored once, except the first, which nothing predicts.

    Args:
        model: the model; its training mode is left as it was found.
        data: bytes, a path, or a uint8 tensor or array; files are not read whole.
        batch_size: number of streams; None for `default_batch_size`.
        segment_length: bytes read at a time; None for 1024, the paper's, or a quarter of the memory
            where that is less, so that early positions of a segment keep most of it.
        memory: M, the most rows a query may see; None takes the model's.
        ranks: processes that share the streams and all call this; None scores alone.

    Returns:
        Bits per byte: 8 for a model that knows nothing, less for a better one.

    Raises:
        InputError: fewer than 2 bytes, a byte the model has no symbol for, or a setting that is
            not positive.

    Source: paper, results (evaluation with carried state and memory).

    Example:
        >>> from sharnn.config import ModelConfig
        >>> torch.manual_seed(0) and None
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> 7.5 < bits_per_byte(model, b"hello " * 100) < 8.5
        True
    """
    source = as_bytes(data)
    size = len(source) - 1
    if size < 1:
        raise InputError(f"at least 2 bytes are needed to score one, got {len(source)}")
    batch_size = default_batch_size(size) if batch_size is None else batch_size
    if segment_length is None:
        limit = model.config.memory if memory is None else memory
        segment_length = min(1024, max(16, limit // 4))
    if batch_size < 1 or segment_length < 1:
        raise InputError("batch_size and segment_length must be at least 1")
    batch_size = min(batch_size, size)
    ranks = Ranks() if ranks is None else ranks
    share = ranks.share(batch_size)
    segments = _segments(source, size, batch_size, segment_length, range(batch_size)[share])
    (nats,) = ranks.sums([ranks.agree(lambda: _nats(model, segments, memory))])
    return nats / size / math.log(2)


def _nats(model: SHARNN, segments: Iterable[tuple[Tensor, Tensor]], memory: int | None) -> float:
    """What the model needs for all targets of segments that follow each other."""
    device = model.embedding.weight.device
    nats, state = 0.0, None
    with evaluating(model):
        for inputs, targets in segments:
            require_symbols(model, int(max(inputs.max(), targets.max())))
            logits, state = model(inputs.to(device), state, memory=memory)
            losses = F.cross_entropy(
                logits.float().transpose(1, 2),
                targets.to(device),
                reduction="none",
                ignore_index=-1,
            )  # (batch, time) nats
            nats += losses.double().sum().item()
    return nats


def _segments(
    source: Any, size: int, batch_size: int, segment_length: int, streams: range
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets (streams, time) of some of the streams of a batch.

    Streams that end early are filled up with target -1.
    """
    length = -(-size // batch_size)
    for position in range(0, length if streams else 0, segment_length):
        time = min(segment_length, length - position)
        inputs = torch.zeros(len(streams), time, dtype=torch.int64)
        targets = torch.full((len(streams), time), -1)
        for row, stream in enumerate(streams):
            start = stream * length + position
            stop = min(start + time, (stream + 1) * length, size)
            if stop > start:
                piece = torch.from_numpy(source[start : stop + 1].astype("int64"))
                inputs[row, : stop - start] = piece[:-1]
                targets[row, : stop - start] = piece[1:]
        yield inputs, targets
