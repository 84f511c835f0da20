"""A text read with the heads in view: the bits of each byte, and where each query looked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.data import Bytes, as_bytes
from sharnn.errors import InputError
from sharnn.model import SHARNN, evaluating, require_symbols


@dataclass(frozen=True)
class Piece:
    """One segment of a text, as a model read it. Query i has read byte ``start + i``.

    Args:
        start: place in the text of the first byte read.
        bits: (time,) bits of the byte after each query, the one it predicts.
        logits: (time, vocab_size) each query's prediction, in nats.
        weights: for each block that has the head (time, memory + time) attention weights. The last
            key is the last byte read, so the keys are the bytes just before and in the segment.
    """

    start: int
    bits: Tensor
    logits: Tensor
    weights: dict[int, Tensor]

    def by_distance(self, block: int, width: int) -> Tensor:
        """The weights of one head, by how far back a byte lies from the byte that is predicted.

        Args:
            block: the head's block.
            width: the farthest distance wanted.

        Returns:
            (time, width) weights: column 0 is the byte just before the predicted one, which is the
            byte just read; 0 where a query can't see so far.
        """
        weights = self.weights[block]
        time, keys = weights.shape
        own = torch.arange(keys - time, keys, device=weights.device)[:, None]  # (time, 1)
        key = own - torch.arange(width, device=weights.device)  # (time, width)
        return weights.gather(1, key.clamp(min=0)) * (key >= 0)


@dataclass(frozen=True)
class Reading:
    """A stretch of text as a model read it, with every byte of its last part watched.

    A watched byte is one that is *predicted*. The query that has read the byte before it makes the
    prediction, so that query's weights belong to it. Distances are counted back from the watched
    byte: the byte just before it, which the query itself has read, is at distance 1.

    Args:
        text: what the watched bytes were predicted from, then the watched bytes, oldest first.
        first: index in ``text`` of the first watched byte, at least 1.
        memory: M, the most rows a query may see.
        segment_length: bytes read at a time.
        bits: (text,) float32 bits of each byte; nan for the first, which nothing predicts.
        weights: for each block that has the head (watched, memory) attention weights by distance;
            column 0 is distance 1, and what a query can't see is 0. Each row sums to 1.
        visible: (watched,) how many keys each query sees: those at distances 1 to this number.
        probabilities: (watched, vocab_size) of every symbol in the place of each watched byte.
    """

    text: bytes
    first: int
    memory: int
    segment_length: int
    bits: Tensor
    weights: dict[int, Tensor]
    visible: Tensor
    probabilities: Tensor

    @property
    def watched(self) -> int:
        """Number of watched bytes."""
        return len(self.text) - self.first


def read(
    model: SHARNN,
    data: Any,
    *,
    watched: int = 1024,
    start: int | None = None,
    memory: int | None = None,
    segment_length: int | None = None,
) -> Reading:
    """Reads a stretch of text and watches its last bytes being predicted.

    Of the data, the watched bytes and the M bytes before them are read, and no more. A segment
    starts where the watching does. Under the paper's rule (see `ModelConfig.memory_window`) the
    first query of a segment of length L sees M - L + 1 keys and the last one M, so short segments
    leave every query more.

    Args:
        model: the model; it reads in evaluation mode and is left as it was found.
        data: bytes, a path, or a uint8 tensor or array.
        watched: the most bytes to watch; fewer where the data end.
        start: offset in the data of the first watched byte, at least 1. None puts it where M bytes
            have been read; where the data are too short for that, as far on as leaves ``watched``
            bytes, and for still shorter data at 1.
        memory: M, the most rows a query may see; None takes the model's.
        segment_length: bytes read at a time; None for 256, or a quarter of M where that is less.

    Returns:
        The reading.

    Raises:
        InputError: the model has no head, there are fewer than 2 bytes, a setting is not positive,
            the start is not in the data, or the model has no symbol for a byte.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> reading = read(model, b"hello " * 50, watched=30)
        >>> reading.first, reading.watched, reading.weights[2].shape
        (100, 30, torch.Size([30, 100]))
    """
    if not model.config.attention_layers:
        raise InputError("the model has no head, so there is nowhere to look")
    source = as_bytes(data)
    if len(source) < 2:
        raise InputError(f"at least 2 bytes are needed to watch one, got {len(source)}")
    limit = model.config.memory if memory is None else memory
    length = _segment_length(segment_length, limit)
    for name, value in (("watched", watched), ("memory", limit)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if start is None:
        start = max(1, min(limit, len(source) - watched))
    if not 1 <= start < len(source):
        raise InputError(
            f"start must be from 1 to {len(source) - 1}, the data's last byte, got {start}"
        )
    text = source[max(0, start - limit) : start + watched]
    first = min(start, limit)
    bits = [torch.full((1,), math.nan)]  # nothing predicts the first byte
    probabilities: list[Tensor] = []
    visible: list[Tensor] = []
    weights: dict[int, list[Tensor]] = {block: [] for block in model.config.attention_layers}
    for piece in _pieces(model, text, limit, reading_cuts(first, len(text), length)):
        bits.append(piece.bits.cpu())
        if piece.start < first - 1:
            continue
        probabilities.append(piece.logits.softmax(-1).cpu())
        for block in weights:
            weights[block].append(piece.by_distance(block, limit).cpu())
        time, keys = piece.weights[block].shape  # the same for all heads
        visible.append(torch.arange(keys - time + 1, keys + 1).clamp(max=limit))  # (time,)
    return Reading(
        text=text.tobytes(),
        first=first,
        memory=limit,
        segment_length=length,
        bits=torch.cat(bits),
        weights={block: torch.cat(parts) for block, parts in weights.items()},
        visible=torch.cat(visible),
        probabilities=torch.cat(probabilities),
    )


def reading_cuts(first: int, size: int, length: int) -> Iterator[tuple[int, int]]:
    """The segments in which `read` reads a text; one starts with the first watched byte's query.

    Args:
        first: index of the first watched byte; the byte before it is its query's.
        size: bytes of the text; the last one is predicted, not read.
        length: bytes read at a time.

    Yields:
        Where each segment starts and where it stops.

    Example:
        >>> list(reading_cuts(6, 10, 3))
        [(0, 3), (3, 5), (5, 8), (8, 9)]
    """
    for low, high in ((0, first - 1), (first - 1, size - 1)):
        for start in range(low, high, length):
            yield start, min(start + length, high)


def pieces(
    model: SHARNN, data: Any, *, memory: int | None = None, segment_length: int | None = None
) -> Iterator[Piece]:
    """Reads a text from its start, segment by segment, and tells where the heads looked.

    LSTM state and memory are carried as in `sharnn.bits_per_byte`, and the bits are the same.

    Args:
        model: the model; it reads in evaluation mode and is left as it was found.
        data: bytes, a path, or a uint8 tensor or array.
        memory: M, the most rows a query may see; None takes the model's.
        segment_length: bytes read at a time; None for 256, or a quarter of M where that is less.

    Yields:
        The segments in order; the last byte of the text is predicted, not read.

    Raises:
        InputError: fewer than 2 bytes, a byte the model has no symbol for, or a setting that is
            not positive.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> [(piece.start, len(piece.bits)) for piece in pieces(model, b"hello " * 10)]
        [(0, 25), (25, 25), (50, 9)]
    """
    text = as_bytes(data)
    if len(text) < 2:
        raise InputError(f"at least 2 bytes are needed to read with a model, got {len(text)}")
    limit = model.config.memory if memory is None else memory
    length = _segment_length(segment_length, limit)
    yield from _pieces(model, text, limit, reading_cuts(1, len(text), length))


def _segment_length(length: int | None, limit: int) -> int:
    """Bytes read at a time, where the default depends on the memory."""
    if length is None:
        return max(1, min(256, limit // 4))
    if length < 1:
        raise InputError(f"segment_length must be at least 1, got {length}")
    return length


def _pieces(
    model: SHARNN, text: Bytes, limit: int, cuts: Iterable[tuple[int, int]]
) -> Iterator[Piece]:
    """Reads the segments of a text one after another; see `pieces`."""
    state = None
    for start, stop in cuts:
        x = symbols(model, text[start : stop + 1])
        with evaluating(model):
            logits, state, attention = model(
                x[None, :-1], state, return_attention=True, memory=limit
            )
        logits = logits[0].float()
        bits = F.cross_entropy(logits, x[1:], reduction="none") / math.log(2)
        weights = {block: rows[0].float() for block, rows in attention.items()}
        yield Piece(start, bits, logits, weights)


def symbols(model: SHARNN, text: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Bytes as a model takes them.

    Args:
        model: who will read them.
        text: (time,) the bytes.

    Returns:
        (time,) int64, on the model's device.

    Raises:
        InputError: the model has no symbol for one of them.
    """
    # Checked here because the model only looks at its inputs, and on the CPU only.
    require_symbols(model, int(text.max()))
    return torch.from_numpy(text.astype("int64")).to(model.embedding.weight.device)
