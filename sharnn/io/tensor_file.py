"""Safetensors files, read whole and without a memory map."""

from __future__ import annotations

import json
import os

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from sharnn.errors import InputError
from sharnn.io.files import read_file, read_start

SIZE_BYTES = 8  # at the start of a file: the size of its header
MAX_HEADER = 100_000_000  # bytes; the format allows no more


def read_tensors(path: str | os.PathLike[str]) -> tuple[bytes, dict[str, Tensor]]:
    """Reads a safetensors file.

    The file is not memory-mapped: if it is truncated while it is read, a map kills the process.

    Returns:
        The file's content and its tensors by name, which own their storage.

    Raises:
        InputError: the file can't be read, or is not a safetensors file.
    """
    content = read_file(path)
    try:
        return content, load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} can't be read as safetensors: {error}") from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the metadata of a safetensors file, of which only the header is read.

    Raises:
        InputError: the file can't be read.
    """
    size = int.from_bytes(read_start(path, SIZE_BYTES), "little")
    return metadata_of(read_start(path, SIZE_BYTES + min(size, MAX_HEADER)))


def metadata_of(content: bytes) -> dict[str, str]:
    """Returns the metadata in the header of a safetensors file; empty if there are none.

    Args:
        content: the file, or its beginning with the whole header.

    Example:
        >>> import torch
        >>> from safetensors.torch import save
        >>> metadata_of(save({"x": torch.ones(1)}, {"name": "value"}))
        {'name': 'value'}
    """
    size = int.from_bytes(content[:SIZE_BYTES], "little")
    try:
        header = json.loads(content[SIZE_BYTES : SIZE_BYTES + size])
    except (ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
