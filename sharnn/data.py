"""Corpora: bytes on disk, split into a training, a validation and a test part."""

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
    """A sequence of bytes that can be read slice by slice."""

    def __len__(self) -> int:
        """Returns the number of bytes."""

    def __getitem__(self, piece: slice, /) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Returns the bytes of a slice with step 1, as uint8."""


class JoinedFiles:
    """Several files concatenated into one sequence of bytes. Only slices are loaded.

    Args:
        parts: the bytes of each file, in order.

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
    """A slice of a sequence of bytes that is loaded only when it is read.

    Args:
        source: the whole sequence.
        start, stop: bounds of the slice.

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
    """Bytes split into a training, a validation and a test part.

    Args:
        name: description for people.
        train, valid, test: the three parts.
        is_sample: the corpus is the built-in sample, not real text.
        notice: why the sample replaces enwik8; None if it doesn't.
        fingerprint: identifies the corpus; a hash of the sizes and both ends of each part.
    """

    name: str
    train: Bytes
    valid: Bytes
    test: Bytes
    is_sample: bool
    notice: str | None
    fingerprint: str

    def describe(self) -> str:
        """Returns three lines: name, sizes of the parts, and number of different byte values.

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
    """Opens a corpus. Files are memory-mapped, so that a large one takes no memory.

    If enwik8 is missing and can't be downloaded, the built-in sample replaces it, and one line on
    standard error explains how to place enwik8 by hand.

    Args:
        source: ``"enwik8"``, ``"sample"``, a file, or several files, which are concatenated.
        split: three fractions of the whole that sum to at most 1, or three numbers of bytes,
            counted from the start; None for 90, 5 and 5 % (enwik8: 90, 5 and 5 million bytes).
        sample_size: number of bytes of the sample.
        download: download enwik8 if it is missing.

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
        # A split in bytes was meant for enwik8: its replacement is split by fractions.
        split = SHARES if notice is not None else split
        name = "built-in sample (generated, not enwik8)"
        return _corpus(name, content, split or SHARES, is_sample=True, notice=notice)
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return _corpus(", ".join(str(path) for path in paths), open_files(paths), split or SHARES)


def _corpus(
    name: str, whole: Bytes, split: Split, is_sample: bool = False, notice: str | None = None
) -> Corpus:
    """Splits a sequence of bytes into the three parts."""
    total = len(whole)
    shares = sum(split) <= 1 + 1e-9
    sizes = [int(total * share) if shares else int(share) for share in split]
    if sum(sizes) > total:
        raise InputError(f"{name} has {total:,} bytes, but the split needs {sum(sizes):,}")
    parts, start = [], 0
    for part, size in zip(("train", "valid", "test"), sizes, strict=True):
        if size < 2:
            raise InputError(
                f"{name} is too short: its {total:,} bytes leave {size} for {part}, which needs 2"
            )
        parts.append(Window(whole, start, start + size))
        start += size
    digest = hashlib.sha256(repr(sizes).encode())
    for window in parts:
        digest.update(window[:65536].tobytes())
        digest.update(window[max(0, len(window) - 65536) :].tobytes())
    return Corpus(name, parts[0], parts[1], parts[2], is_sample, notice, digest.hexdigest())


def open_files(paths: Sequence[str | os.PathLike[str]]) -> Bytes:
    """Returns the bytes of one file, or of several files concatenated; they are memory-mapped.

    Raises:
        InputError: ``paths`` is empty, or a path is missing, unreadable, empty or not a file.
    """
    if not paths:
        raise InputError("give at least one file")
    parts = [open_bytes(path) for path in paths]
    return parts[0] if len(parts) == 1 else JoinedFiles(parts)


def open_bytes(path: str | os.PathLike[str]) -> Bytes:
    """Returns the bytes of a file, memory-mapped.

    Raises:
        InputError: the file is missing, a folder, not a regular file, unreadable or empty.
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
    """Parses a split as written on the command line: three fractions or three byte counts.

    Raises:
        InputError: ``text`` is neither.

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
        raise InputError(f"the fractions of a split must sum to at most 1, got {text!r}")
    return split


def as_bytes(data: Any) -> Bytes:
    """Returns data as a sequence of uint8 values, without copying them if possible.

    Args:
        data: bytes, a path, a uint8 tensor or array, or a part of a corpus.

    Raises:
        InputError: ``data`` is none of these, or a file can't be read.

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
