"""Evaluation: bits per byte of a model on data it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.distributed import ProcessGroup
from sharnn.errors import InputError
from sharnn.io.byte_sources import as_bytes
from sharnn.model import SHARNN, evaluating, require_finite, require_symbols
from sharnn.streams import Streams
from sharnn.weights import usable


def default_batch_size(size: int) -> int:
    """Returns the number of streams for scoring ``size`` bytes: one per 100,000, from 1 to 8.

    Each stream starts with an empty state, which costs bits; the paper scores its test set in 8.

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
    memory_limit: int | None = None,
    group: ProcessGroup | None = None,
) -> float:
    """Returns the mean number of bits the model needs for a byte, given all bytes before it.

    The data are cut into contiguous streams, which are read segment by segment with LSTM state
    and memory carried over. Every byte is scored once, except the first, which nothing predicts.
    A model that assigns equal probability to all bytes needs 8 bits per byte.

    Args:
        model: the model; its training mode does not matter and is not changed. From a wrapper such
            as that of `torch.compile`, the model itself is taken.
        data: bytes, a path, or a uint8 tensor or array; a file is not loaded whole.
        batch_size: number of streams; None for `default_batch_size`.
        segment_length: bytes read at a time; None for 1024, as in the paper, or a quarter of
            the memory limit if that is less, so that the first positions of a segment keep most
            of the memory.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.
        group: processes that share the streams, all of which call this; None for one process.

    Raises:
        InputError: fewer than 2 bytes, a byte outside the model's vocabulary, a setting that is
            not positive, or weights or outputs with NaN or Inf.

    Source: paper, results (evaluation with carried state and memory).

    Example:
        >>> import torch
        >>> from sharnn.config import ModelConfig
        >>> torch.manual_seed(0) and None
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> 7.5 < bits_per_byte(model, b"hello " * 100) < 8.5
        True
    """
    model = usable(model)
    streams, segment_length = _cut(model, data, batch_size, segment_length, memory_limit)
    group = ProcessGroup() if group is None else group
    with group.shared_errors():
        segments = streams.all_segments(segment_length, group.shard(streams.batch_size))
        # Summed in float64, which Apple's GPUs don't have.
        sums = [
            losses.cpu().sum(dtype=torch.float64).item()
            for losses in _losses(model, segments, memory_limit)
        ]
    (nats,) = group.all_reduce([sum(sums)])
    require_finite(torch.tensor(nats))
    return nats / int(streams.lengths.sum()) / math.log(2)


def bits_of_bytes(
    model: SHARNN,
    data: Any,
    *,
    batch_size: int | None = None,
    segment_length: int | None = None,
    memory_limit: int | None = None,
) -> Tensor:
    """Returns the number of bits the model needs for each byte but the first.

    Args:
        model, data, batch_size, segment_length, memory_limit: as in `bits_per_byte`, which returns
            the mean of these numbers.

    Returns:
        (bytes - 1,) float32 on the CPU.

    Raises:
        InputError: see `bits_per_byte`.

    Example:
        >>> import torch
        >>> from sharnn.config import ModelConfig
        >>> torch.manual_seed(0) and None
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64))
        >>> bits_of_bytes(model, b"hello").shape
        torch.Size([4])
    """
    model = usable(model)
    streams, segment_length = _cut(model, data, batch_size, segment_length, memory_limit)
    segments = streams.all_segments(segment_length, slice(0, streams.batch_size))
    nats = torch.cat([loss.cpu() for loss in _losses(model, segments, memory_limit)], dim=1)
    require_finite(nats)
    by_stream = zip(nats, streams.lengths, strict=True)  # a shorter stream is padded
    return torch.cat([losses[: int(length)] for losses, length in by_stream]) / math.log(2)


def _cut(
    model: SHARNN,
    data: Any,
    batch_size: int | None,
    segment_length: int | None,
    memory_limit: int | None,
) -> tuple[Streams, int]:
    """Returns the streams in which data are scored, and the length of their segments."""
    source = as_bytes(data)
    size = len(source) - 1
    if size < 1:
        raise InputError(f"at least 2 bytes are needed to score one, got {len(source)}")
    batch_size = default_batch_size(size) if batch_size is None else batch_size
    if segment_length is None:
        limit = model.config.memory if memory_limit is None else memory_limit
        segment_length = min(1024, max(16, limit // 4))
    if batch_size < 1 or segment_length < 1:
        raise InputError("batch_size and segment_length must be at least 1")
    return Streams(source, min(batch_size, size), drop_remainder=False), segment_length


def _losses(
    model: SHARNN, segments: Iterable[tuple[Tensor, Tensor]], memory_limit: int | None
) -> Iterator[Tensor]:
    """Yields the losses (streams, time) of consecutive segments, in nats; 0 beyond a stream."""
    device = model.embedding.weight.device
    state = None
    with evaluating(model):
        for inputs, targets in segments:
            require_symbols(model, int(max(inputs.max(), targets.max())))
            logits, state = model(inputs.to(device), state, memory_limit=memory_limit)
            yield F.cross_entropy(
                logits.float().transpose(1, 2),
                targets.to(device),
                reduction="none",
                ignore_index=-1,
            )
