"""Attention traces: the bits and the attention weights of every prediction over a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.errors import InputError
from sharnn.io.byte_sources import Bytes, as_bytes
from sharnn.model import SHARNN, evaluating, require_finite, require_symbols
from sharnn.weights import usable


@dataclass(frozen=True)
class SegmentTrace:
    """The trace of one segment of a text. Query i has read byte ``start + i``.

    Args:
        start: index in the text of the first byte read.
        bits: (time,) bits of the byte that each query predicts, the one after it.
        logits: (time, vocab_size) each query's prediction, in nats.
        weights: for each block that has the head, (time, memory + time) attention weights. The
            last key is the last byte read, so the keys are the bytes just before the segment and
            those in it.
    """

    start: int
    bits: Tensor
    logits: Tensor
    weights: dict[int, Tensor]

    def weights_by_distance(self, block: int, width: int) -> Tensor:
        """Returns one head's weights, sorted by the distance from key to predicted byte.

        Args:
            block: the head's block.
            width: the largest distance to include.

        Returns:
            (time, width) weights. Column 0 is distance 1: the byte just before the predicted one,
            which the query has just read. Weights beyond the oldest key are 0.
        """
        weights = self.weights[block]
        time, keys = weights.shape
        own = torch.arange(keys - time, keys, device=weights.device)[:, None]  # (time, 1)
        key = own - torch.arange(width, device=weights.device)  # (time, width)
        return weights.gather(1, key.clamp(min=0)) * (key >= 0)


@dataclass(frozen=True)
class AttentionTrace:
    """The predictions of a stretch of text, with the attention weights behind each of them.

    The last bytes of the stretch are its *targets*: the bytes whose predictions are traced. The
    query that has read the byte before a target predicts it, so that query's weights belong to
    the target. Distances are counted back from the target: the byte just before it, which is the
    query's own, is at distance 1. With shifted keys (see `ModelConfig`) a weight is on the row
    whose value it multiplies, not on the row before it, whose key gave the score.

    Args:
        text: the bytes that the targets are predicted from, followed by the targets.
        first: index in ``text`` of the first target, at least 1.
        memory_limit: M, the maximum number of rows a query can attend to.
        segment_length: number of bytes read at a time.
        bits: (text,) float32 bits of each byte; nan for the first byte, which is not predicted.
        weights: for each block that has the head, (targets, memory) attention weights by distance.
            Column 0 is distance 1; keys that a query can't attend to have weight 0. The weights of
            each target sum to 1.
        num_visible: (targets,) number of keys each query can attend to: those at distances 1 to
            this number.
        probabilities: (targets, vocab_size) predicted probability of every symbol at the position
            of each target.
    """

    text: bytes
    first: int
    memory_limit: int
    segment_length: int
    bits: Tensor
    weights: dict[int, Tensor]
    num_visible: Tensor
    probabilities: Tensor

    @property
    def num_targets(self) -> int:
        """Number of target bytes."""
        return len(self.text) - self.first


def trace_attention(
    model: SHARNN,
    data: Any,
    *,
    targets: int = 1024,
    start: int | None = None,
    memory_limit: int | None = None,
    segment_length: int | None = None,
) -> AttentionTrace:
    """Reads a stretch of text and records how its last bytes, the targets, are predicted.

    Only the targets and the M bytes before them are read. A new segment starts with the first
    target's query. Under the paper's rule (see `ModelConfig.memory_window`) the first query of a
    segment of length L can attend to M - L + 1 keys and the last one to M, so shorter segments
    give every query more keys.

    Args:
        model: the model. It is used in evaluation mode; its mode is restored afterwards.
        data: bytes, a path, or a uint8 tensor or array.
        targets: maximum number of target bytes; fewer if the data end earlier.
        start: offset in the data of the first target, at least 1. None chooses M, so that the
            memory is full. If the data are too short for that, the first target is placed so that
            ``targets`` bytes are left, or at 1.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.
        segment_length: number of bytes read at a time; None for 256, or M / 4 if that is less.

    Raises:
        InputError: the model has no head, the data have fewer than 2 bytes, a setting is not
            positive, ``start`` is outside the data, the model has no symbol for a byte, or its
            weights or outputs contain NaN or Inf.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> trace = trace_attention(model, b"hello " * 50, targets=30)
        >>> trace.first, trace.num_targets, trace.weights[2].shape
        (100, 30, torch.Size([30, 100]))
    """
    model = usable(model)
    if not model.config.attention_layers:
        raise InputError("the model has no head: there is no attention to trace")
    source = _as_text(data)
    limit = model.config.memory if memory_limit is None else memory_limit
    length = _segment_length(segment_length, limit)
    for name, value in (("targets", targets), ("memory_limit", limit)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if start is None:
        start = max(1, min(limit, len(source) - targets))
    if not 1 <= start < len(source):
        raise InputError(
            f"start must be from 1 to {len(source) - 1}, the offset of the last byte, got {start}"
        )
    text = source[max(0, start - limit) : start + targets]
    first = min(start, limit)
    bits = [torch.full((1,), math.nan)]  # the first byte is not predicted
    probabilities: list[Tensor] = []
    num_visible: list[Tensor] = []
    weights: dict[int, list[Tensor]] = {block: [] for block in model.config.attention_layers}
    for segment in _trace(model, text, limit, segment_bounds(first, len(text), length)):
        bits.append(segment.bits.cpu())
        if segment.start < first - 1:
            continue
        probabilities.append(segment.logits.softmax(-1).cpu())
        for block in weights:
            weights[block].append(segment.weights_by_distance(block, limit).cpu())
        time, keys = segment.weights[block].shape  # the same for all heads
        num_visible.append(torch.arange(keys - time + 1, keys + 1).clamp(max=limit))  # (time,)
    return AttentionTrace(
        text=text.tobytes(),
        first=first,
        memory_limit=limit,
        segment_length=length,
        bits=torch.cat(bits),
        weights={block: torch.cat(parts) for block, parts in weights.items()},
        num_visible=torch.cat(num_visible),
        probabilities=torch.cat(probabilities),
    )


def segment_bounds(first: int, size: int, length: int) -> Iterator[tuple[int, int]]:
    """Yields the start and the end of each segment of a traced text.

    A new segment starts with the first target's query.

    Args:
        first: index of the first target; its query is the byte before it.
        size: size of the text in bytes; the last byte is predicted but not read.
        length: maximum length of a segment.

    Example:
        >>> list(segment_bounds(6, 10, 3))
        [(0, 3), (3, 5), (5, 8), (8, 9)]
    """
    for low, high in ((0, first - 1), (first - 1, size - 1)):
        for start in range(low, high, length):
            yield start, min(start + length, high)


def trace_segments(
    model: SHARNN, data: Any, *, memory_limit: int | None = None, segment_length: int | None = None
) -> Iterator[SegmentTrace]:
    """Reads a whole text and yields the trace of each segment, in order.

    LSTM states and memory are carried as in `sharnn.bits_per_byte`, and the bits are the same.
    The last byte of the text is predicted but not read.

    Args:
        model: the model. It is used in evaluation mode; its mode is restored afterwards.
        data: bytes, a path, or a uint8 tensor or array.
        memory_limit: M, the maximum number of rows a query can attend to; None for the model's.
        segment_length: number of bytes read at a time; None for 256, or M / 4 if that is less.

    Raises:
        InputError: the data have fewer than 2 bytes, the model has no symbol for a byte, a setting
            is not positive, or weights or outputs contain NaN or Inf.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> [(s.start, len(s.bits)) for s in trace_segments(model, b"hello " * 10)]
        [(0, 25), (25, 25), (50, 9)]
    """
    model, text = usable(model), _as_text(data)
    limit = model.config.memory if memory_limit is None else memory_limit
    length = _segment_length(segment_length, limit)
    yield from _trace(model, text, limit, segment_bounds(1, len(text), length))


def _as_text(data: Any) -> Bytes:
    """Returns the data as bytes; raises an error if there are fewer than 2."""
    text = as_bytes(data)
    if len(text) < 2:
        raise InputError(f"at least 2 bytes are needed for a prediction, got {len(text)}")
    return text


def _segment_length(length: int | None, limit: int) -> int:
    """Returns the number of bytes to read at a time; the default depends on the memory."""
    if length is None:
        return max(1, min(256, limit // 4))
    if length < 1:
        raise InputError(f"segment_length must be at least 1, got {length}")
    return length


def _trace(
    model: SHARNN, text: Bytes, limit: int, bounds: Iterable[tuple[int, int]]
) -> Iterator[SegmentTrace]:
    """Reads the segments of a text one after another and yields their traces."""
    state = None
    for start, stop in bounds:
        x = to_symbols(model, text[start : stop + 1])
        with evaluating(model):
            logits, state, attention = model.forward_with_attention(
                x[None, :-1], state, memory_limit=limit
            )
        logits = logits[0].float()
        require_finite(logits)
        bits = F.cross_entropy(logits, x[1:], reduction="none") / math.log(2)
        weights = {block: batch[0].float() for block, batch in attention.items()}
        yield SegmentTrace(start, bits, logits, weights)


def to_symbols(model: SHARNN, text: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Returns bytes (time,) as int64 symbols (time,) on the model's device.

    Raises:
        InputError: the model has no symbol for one of them.
    """
    # The model checks its inputs on the CPU only.
    require_symbols(model, int(text.max()))
    return torch.from_numpy(text.astype("int64")).to(model.embedding.weight.device)


def require_head(model: SHARNN, block: int) -> None:
    """Raises an error unless a block has the head.

    Raises:
        InputError: it has none.
    """
    heads = model.config.attention_layers
    if block not in heads:
        raise InputError(f"block {block} has no head; blocks with a head: {list(heads)}")
