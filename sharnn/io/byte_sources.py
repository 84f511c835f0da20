"""Bytes that are read slice by slice: of a file, of several files, or of a part of them."""

from __future__ import annotations

import os
import stat
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sharnn.errors import InputError

Array = np.ndarray[Any, np.dtype[np.uint8]]
MAX_READ = 2**30  # bytes that one call reads; systems have limits from 2**31 - 4096 bytes on


class Bytes(Protocol):
    """A sequence of bytes that can be read slice by slice."""

    def __len__(self) -> int:
        """Returns the number of bytes."""

    def __getitem__(self, piece: slice, /) -> Array:
        """Returns the bytes of a slice with step 1, as uint8."""


class FileBytes:
    """The bytes of a file, which stays open. Only slices are loaded.

    The file is not memory-mapped: if it is truncated or its disk fails, reading a map kills the
    process. Here it is an error.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing, a folder, not a regular file, unreadable or empty. Reading
            a slice raises it if the file has been truncated or can't be read any more.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        try:
            mode = os.stat(path).st_mode  # first: opening a pipe would wait for its writer
            if stat.S_ISREG(mode):
                self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                weakref.finalize(self, os.close, self._descriptor).atexit = False
                self._size = os.fstat(self._descriptor).st_size
        except FileNotFoundError:
            raise InputError(f"{path} does not exist") from None
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder: give files")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a regular file")
        if self._size == 0:
            raise InputError(f"{path} is empty")

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, piece: slice) -> Array:
        start, stop, _ = piece.indices(self._size)
        pieces = []
        while start < stop:
            try:
                content = _read_at(self._descriptor, min(stop - start, MAX_READ), start)
            except OSError as error:
                raise _unreadable(self.path, error) from error
            if not content:
                raise InputError(
                    f"{self.path} was truncated while it was being read: its {self._size:,} bytes "
                    f"now end at {start:,}"
                )
            pieces.append(content)
            start += len(content)
        return np.frombuffer(b"".join(pieces), dtype=np.uint8)

    def __reduce__(self) -> tuple[type[FileBytes], tuple[str]]:
        return FileBytes, (os.path.abspath(self.path),)  # a copy opens the file again


def _unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}")


_SEEKING = threading.Lock()


def _seek_and_read(descriptor: int, size: int, start: int) -> bytes:
    """Does what `os.pread` does, on systems that lack it."""
    with _SEEKING:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, size)


_read_at = getattr(os, "pread", _seek_and_read)


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

    def __getitem__(self, piece: slice) -> Array:
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

    def __getitem__(self, piece: slice) -> Array:
        start, stop, _ = piece.indices(len(self))
        return self.source[self.start + start : self.start + max(start, stop)]


def open_files(paths: Sequence[str | os.PathLike[str]]) -> Bytes:
    """Returns the bytes of one file, or of several files concatenated.

    Raises:
        InputError: ``paths`` is empty, or a file can't be used; see `FileBytes`.
    """
    if not paths:
        raise InputError("give at least one file")
    parts = [FileBytes(path) for path in paths]
    return parts[0] if len(parts) == 1 else JoinedFiles(parts)


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
        return FileBytes(data)
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy() if data.dtype == torch.uint8 else data
    if isinstance(data, (FileBytes, JoinedFiles, Window)):
        return data
    if getattr(data, "dtype", None) != np.uint8 or not isinstance(data, np.ndarray):
        kind = getattr(data, "dtype", type(data).__name__)
        raise InputError(f"data must be bytes, a path or uint8 values, got {kind}")
    if data.ndim != 1:
        raise InputError(f"data must have one axis, got shape {data.shape}")
    return data
