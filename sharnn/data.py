"""Corpora: bytes on disk, split into train, valid and test, read as parallel streams."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sharnn.enwik8 import DownloadError, enwik8_path
from sharnn.errors import InputError
from sharnn.sample import sample_bytes

Split = tuple[float, float, float]
SHARES: Split = (0.9, 0.05, 0.05)
ENWIK8_SPLIT: Split = (90_000_000, 5_000_000, 5_000_000)
SAMPLE_SIZE = 4_000_000


class Bytes(Protocol):
    """A sequence of bytes that is read piece by piece."""

    def __len__(self) -> int:
        """Number of bytes."""

    def __getitem__(self, piece: slice, /) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes of a slice with step 1, as uint8."""


class JoinedFiles:
    """Several files, one after another, as one sequence of bytes; nothing is loaded ahead.

    Args:
        parts: the files' bytes in order.

    Example:
        >>> joined = JoinedFiles([np.arange(3, dtype=np.uint8), np.arange(4, dtype=np.uint8)])
        >>> len(joined), joined[1:5].tolist()
        (7, [1, 2, 0, 1])
    """

    def __init__(self, parts: Sequence[Bytes]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, piece: slice) -> np.ndarray[Any, np.dtype[np.uint8]]:
        start, stop, _ = piece.indices(len(self))
        first = int(np.searchsorted(self.ends, start, side="right"))
        pieces = [np.empty(0, dtype=np.uint8)]
        for part, end in zip(self.parts[first:], self.ends[first:], strict=True):
            begin = int(end) - len(part)
            if begin >= stop:
                break
            pieces.append(part[max(start - begin, 0) : stop - begin])
        return np.concatenate(pieces)


class Window:
    """A stretch of a sequence of bytes, still unread.

    Args:
        source: the whole.
        start, stop: where the stretch lies.

    Example:
        >>> Window(np.arange(9, dtype=np.uint8), 2, 7)[1:3].tolist()
        [3, 4]
    """

    def __init__(self, source: Bytes, start: int, stop: int) -> None:
        self.source, self.start, self.stop = source, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, piece: slice) -> np.ndarray[Any, np.dtype[np.uint8]]:
        start, stop, _ = piece.indices(len(self))
        return self.source[self.start + start : self.start + max(start, stop)]


@dataclass(frozen=True)
class Corpus:
    """Bytes to learn from, to choose by and to be judged on.

    Args:
        name: what it is, for people.
        train, valid, test: the three parts.
        is_sample: it is the built-in sample, not real text.
        notice: why the sample stands in for enwik8; None where it doesn't.
        fingerprint: tells corpora apart; made of the sizes and both ends of each part.
    """

    name: str
    train: Bytes
    valid: Bytes
    test: Bytes
    is_sample: bool
    notice: str | None
    fingerprint: str

    def describe(self) -> str:
        """A few lines about it.

        Returns:
            The name, the sizes of the parts, and the number of byte values in its first million.

        Example:
            >>> print(load_corpus("sample", sample_size=10_000).describe().splitlines()[1])
              train 9,000 bytes, valid 500, test 500
        """
        start = self.train[:1_000_000]
        sizes = (
            f"train {len(self.train):,} bytes, valid {len(self.valid):,}, test {len(self.test):,}"
        )
        values = f"{len(np.unique(start))} different byte values in the first {len(start):,}"
        return f"{self.name}\n  {sizes}\n  {values}"


def load_corpus(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: Split | None = None,
    *,
    sample_size: int = SAMPLE_SIZE,
    download: bool = True,
) -> Corpus:
    """Opens a corpus. Files are memory-mapped: a large one costs no memory.

    Where enwik8 is neither here nor to be fetched, one line on the standard error stream says so
    and how to place it by hand, and the built-in sample takes over.

    Args:
        source: ``"enwik8"``, ``"sample"``, a file, or several files that are joined in order.
        split: three shares of the whole that sum to at most 1, or three numbers of bytes taken
            from the start in order; None for 90, 5 and 5 % (of enwik8: 90, 5 and 5 million bytes).
        sample_size: bytes of the sample.
        download: fetch enwik8 where it is missing.

    Returns:
        The corpus.

    Raises:
        InputError: a file is missing, unreadable, empty or damaged, or too short for the split.

    Example:
        >>> corpus = load_corpus("sample", sample_size=10_000)
        >>> len(corpus.train), corpus.is_sample
        (9000, True)
    """
    notice = None
    if source == "enwik8":
        try:
            path = enwik8_path(download)
            return _corpus("enwik8", open_bytes(path), split or ENWIK8_SPLIT)
        except DownloadError as error:
            notice = f"{error}; using the built-in sample, which is not enwik8"
            print(f"sharnn: {notice}", file=sys.stderr)
    if source == "sample" or notice is not None:
        content = np.frombuffer(sample_bytes(sample_size), dtype=np.uint8)
        # Numbers of bytes were meant for the real thing: the sample is split by shares.
        split = SHARES if notice is not None else split
        name = "built-in sample (generated, not enwik8)"
        return _corpus(name, content, split or SHARES, is_sample=True, notice=notice)
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return _corpus(", ".join(str(path) for path in paths), open_files(paths), split or SHARES)


def _corpus(
    name: str, whole: Bytes, split: Split, is_sample: bool = False, notice: str | None = None
) -> Corpus:
    """Cuts a sequence of bytes into the three parts."""
    total = len(whole)
    shares = sum(split) <= 1 + 1e-9
    sizes = [int(total * share) if shares else int(share) for share in split]
    if sum(sizes) > total:
        raise InputError(f"{name} has {total:,} bytes, but the split needs {sum(sizes):,}")
    parts, start = [], 0
    for part, size in zip(("train", "valid", "test"), sizes, strict=True):
        if size < 2:
            raise InputError(
                f"{name} is too short: its {total:,} bytes leave {size} for {part}, 2 are needed"
            )
        parts.append(Window(whole, start, start + size))
        start += size
    digest = hashlib.sha256(repr(sizes).encode())
    for window in parts:
        digest.update(window[:65536].tobytes())
        digest.update(window[max(0, len(window) - 65536) :].tobytes())
    return Corpus(name, parts[0], parts[1], parts[2], is_sample, notice, digest.hexdigest())


def open_files(paths: Sequence[str | os.PathLike[str]]) -> Bytes:
    """The bytes of one file or of several joined in order, memory-mapped.

    Args:
        paths: the files.

    Returns:
        Their bytes, uint8.

    Raises:
        InputError: there are none, or one is missing, unreadable, empty or no file.
    """
    if not paths:
        raise InputError("no files were given")
    parts = [open_bytes(path) for path in paths]
    return parts[0] if len(parts) == 1 else JoinedFiles(parts)


def open_bytes(path: str | os.PathLike[str]) -> Bytes:
    """The bytes of a file, memory-mapped.

    Args:
        path: the file.

    Returns:
        Its bytes, uint8.

    Raises:
        InputError: it is missing, a folder, no regular file, unreadable or empty.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder: give files")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file")
        if status.st_size == 0:
            raise InputError(f"{path} is empty")
        return np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} can't be read: {reason}") from error


def parse_split(text: str) -> Split:
    """Reads a split as written on the command line.

    Args:
        text: ``"0.9,0.05,0.05"`` or ``"3200000,200000,200000"``.

    Returns:
        Three shares or numbers of bytes.

    Raises:
        InputError: it is neither.

    Example:
        >>> parse_split("0.8,0.1,0.1"), parse_split("300,20,20")
        ((0.8, 0.1, 0.1), (300.0, 20.0, 20.0))
    """
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"a split is three numbers like 0.9,0.05,0.05, got {text!r}") from None
    split = (train, valid, test)
    if not all(0 < part < 1e15 for part in split):
        raise InputError(f"the parts of a split must be more than 0, got {text!r}")
    if sum(split) > 1 + 1e-9 and not all(part == int(part) for part in split):
        raise InputError(f"shares of a split must sum to at most 1, got {text!r}")
    return split


def as_bytes(data: Any) -> Bytes:
    """Bytes in any form a caller may have them, without a copy where that can be.

    Args:
        data: bytes, a path, a uint8 tensor or array, or a part of a corpus.

    Returns:
        Something with a length whose slices are uint8 arrays.

    Raises:
        InputError: it is none of these, or a file can't be read.

    Example:
        >>> as_bytes(b"abc")[1:].tolist()
        [98, 99]
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return np.frombuffer(data, dtype=np.uint8)
    if isinstance(data, (str, os.PathLike)):
        return open_bytes(data)
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy() if data.dtype == torch.uint8 else data
    if isinstance(data, (Window, JoinedFiles)):
        return data
    if getattr(data, "dtype", None) != np.uint8 or not isinstance(data, np.ndarray):
        kind = getattr(data, "dtype", type(data).__name__)
        raise InputError(f"data must be bytes, a path or uint8 values, got {kind}")
    if data.ndim != 1:
        raise InputError(f"data must have one axis, got shape {data.shape}")
    return data


class Streams:
    """A sequence of bytes cut into equal contiguous streams that are read side by side.

    Args:
        source: the bytes.
        batch_size: number of streams.

    Attributes:
        length: bytes of each stream that can be predicted.

    Raises:
        InputError: there are too few bytes.

    Source: paper, training settings (batches of contiguous text).

    Example:
        >>> streams = Streams(np.frombuffer(b"abcdefg", dtype=np.uint8), batch_size=2)
        >>> inputs, targets = streams.segment(0, 2)
        >>> inputs.tolist(), targets.tolist()
        ([[97, 98], [100, 101]], [[98, 99], [101, 102]])
    """

    def __init__(self, source: Bytes, batch_size: int) -> None:
        self.source, self.batch_size = source, batch_size
        self.length = (len(source) - 1) // batch_size
        if self.length < 1:
            raise InputError(
                f"{batch_size} streams need at least {batch_size + 1} bytes, got {len(source)}"
            )

    def segment(self, position: int, length: int) -> tuple[Tensor, Tensor]:
        """The next bytes of every stream, and the bytes that follow each of them.

        Args:
            position: where in the streams the segment starts.
            length: how long it is; it ends early where the streams end.

        Returns:
            Inputs and targets, (batch, time) int64 both.
        """
        length = min(length, self.length - position)
        starts = (stream * self.length + position for stream in range(self.batch_size))
        pieces = np.stack([self.source[start : start + length + 1] for start in starts])
        symbols = torch.from_numpy(pieces.astype(np.int64))  # (batch, time + 1)
        return symbols[:, :-1], symbols[:, 1:]
