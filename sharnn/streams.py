"""Streams: data cut into contiguous parts that are read in parallel, segment by segment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharnn.errors import InputError
from sharnn.io.byte_sources import Bytes


def cut_streams(
    size: int, num_streams: int
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Cuts positions 0 to ``size - 1`` into contiguous streams of almost equal length.

    If the number of streams does not divide the size, the first ones are one position longer.
    Training, evaluation and compression all cut their data this way.

    Returns:
        The first position of each stream and its length, (num_streams,) each.

    Example:
        >>> starts, lengths = cut_streams(8, 3)
        >>> starts.tolist(), lengths.tolist()
        ([0, 3, 6], [3, 3, 2])
    """
    shortest, longer = divmod(size, num_streams)
    numbers = np.arange(num_streams, dtype=np.int64)
    return numbers * shortest + np.minimum(numbers, longer), shortest + (numbers < longer)


class Streams:
    """A sequence of bytes cut into contiguous streams that are read in parallel.

    Args:
        source: the bytes.
        batch_size: number of streams.
        drop_remainder: leave out the last bytes so that all streams are equally long, as the
            author does in training.

    Attributes:
        starts: (batch,) first position of each stream.
        lengths: (batch,) number of bytes to predict in each stream; see `cut_streams`.
        length: the shortest of them.

    Raises:
        InputError: there are too few bytes.

    Source: paper, training settings (batches of contiguous text).

    Example:
        >>> streams = Streams(np.frombuffer(b"abcdefg", dtype=np.uint8), batch_size=2)
        >>> inputs, targets = streams.segment(0, 2)
        >>> inputs.tolist(), targets.tolist()
        ([[97, 98], [100, 101]], [[98, 99], [101, 102]])
    """

    def __init__(self, source: Bytes, batch_size: int, drop_remainder: bool = True) -> None:
        self.source, self.batch_size = source, batch_size
        size = len(source) - 1  # nothing predicts the first byte
        if size < batch_size:
            raise InputError(
                f"{batch_size} streams need at least {batch_size + 1} bytes, got {len(source)}"
            )
        if drop_remainder:
            size -= size % batch_size
        self.starts, self.lengths = cut_streams(size, batch_size)
        self.length = int(self.lengths.min())

    def segment(self, position: int, length: int) -> tuple[Tensor, Tensor]:
        """Returns the next bytes of every stream, and the bytes that follow them.

        Args:
            position: start of the segment in each stream.
            length: number of bytes; fewer at the end of the shortest stream.

        Returns:
            Inputs and targets, (batch, time) int64 each.
        """
        length = min(length, self.length - position)
        pieces = np.stack([self.source[s : s + length + 1] for s in self.starts + position])
        symbols = torch.from_numpy(pieces.astype(np.int64))  # (batch, time + 1)
        return symbols[:, :-1], symbols[:, 1:]

    def all_segments(self, length: int, shard: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the segments of some of the streams, to the end of the longest stream.

        Args:
            length: number of bytes of a segment.
            shard: the streams to read.

        Yields:
            Inputs and targets, (streams, time) int64 each; a target beyond the end of a shorter
            stream is -1.
        """
        starts, lengths = self.starts[shard], self.lengths[shard]
        # Cut all streams like the longest one: the cut can change the outputs.
        longest = int(self.lengths.max()) if len(starts) else 0
        for position in range(0, longest, length):
            time = min(length, longest - position)
            inputs = torch.zeros(len(starts), time, dtype=torch.int64)
            targets = torch.full((len(starts), time), -1)
            for i, (start, size) in enumerate(zip(starts + position, lengths, strict=True)):
                piece = self.source[start : start + min(time, size - position) + 1]
                symbols = torch.from_numpy(piece.astype(np.int64))
                inputs[i, : len(symbols) - 1] = symbols[:-1]
                targets[i, : len(symbols) - 1] = symbols[1:]
            yield inputs, targets
