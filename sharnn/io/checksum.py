"""The checksum in a safetensors or ONNX file, which detects any change of the file's bytes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence

from sharnn.errors import InputError
from sharnn.io.tensor_file import SIZE_BYTES

KEY = "checksum"  # in the file's metadata
BLANK = "0" * 32  # in place of the checksum while it is computed
_START = b'{"__metadata__":{'  # of the header
_VALUE = re.compile(r"[0-9a-f]{32}")
_ENTRY = re.compile(rb'"%b"\s*:\s*"([0-9a-f]{32})"' % KEY.encode())
# In ONNX's encoding, a pair of metadata: the key is field 1, and the value field 2, of 32 bytes.
_ONNX_KEY, _ONNX_VALUE = rb"\x0a\x08%b" % KEY.encode(), rb"\x12\x20([0-9a-f]{32})"
_ONNX_ENTRY = re.compile(_ONNX_KEY + _ONNX_VALUE)
_ONNX_TRACE = re.compile(_ONNX_KEY + b"|" + _ONNX_VALUE)  # of an entry that may be damaged


def add_checksum(content: bytes) -> tuple[bytes, memoryview]:
    """Adds a checksum to the header of a safetensors file.

    The checksum is BLAKE2b, 32 hexadecimal digits, of the whole file with zeros in their place. So
    it covers the configuration, and the names and shapes of tensors, as well as their values.

    Args:
        content: the file, which has metadata but no checksum.

    Returns:
        The file's new header, and the rest of ``content``, which is not copied.

    Example:
        >>> import torch
        >>> from safetensors.torch import load, save
        >>> content = save({"x": torch.ones(2)}, {"name": "value"})
        >>> header, rest = add_checksum(content)
        >>> load(header + rest)
        {'x': tensor([1., 1.])}
    """
    end = SIZE_BYTES + int.from_bytes(content[:SIZE_BYTES], "little")
    header, rest = content[SIZE_BYTES:end].rstrip(), memoryview(content)[end:]
    if not header.startswith(_START + b'"') or _ENTRY.search(header):
        raise ValueError("the file has no metadata, or a checksum already")
    entry = b'"%b":"%b",' % (KEY.encode(), BLANK.encode())
    header = _START + entry + header[len(_START) :]
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8 bytes
    header = len(header).to_bytes(SIZE_BYTES, "little") + header
    hasher = hashlib.blake2b(header, digest_size=16)
    hasher.update(rest)
    return header.replace(BLANK.encode(), hasher.hexdigest().encode(), 1), rest


def verify_checksum(
    path: str | os.PathLike[str], content: bytes, metadata: Mapping[str, str]
) -> None:
    """Verifies the checksum of a safetensors file; one without a checksum is accepted.

    Args:
        path: the file, for the error message.
        content: its content, with a valid header.
        metadata: the header's metadata.

    Raises:
        InputError: the checksum does not match.
    """
    # Without a checksum there is no value like one either, under a damaged name.
    if KEY in metadata or any(map(_VALUE.fullmatch, metadata.values())):
        end = SIZE_BYTES + int.from_bytes(content[:SIZE_BYTES], "little")
        _verify(path, content, list(_ENTRY.finditer(content, 0, end)))


def fill_onnx_checksum(content: bytes) -> bytes:
    """Returns an ONNX file with its checksum.

    Args:
        content: the file, whose metadata have `BLANK` under `KEY`.
    """
    (entry,) = _ONNX_ENTRY.finditer(content)
    start, end = entry.span(1)
    return b"".join([content[:start], _digest(content, start, end), content[end:]])


def verify_onnx_checksum(path: str | os.PathLike[str], content: bytes) -> None:
    """Verifies the checksum of an ONNX file; one without a checksum is accepted.

    Args:
        path: the file, for the error message.
        content: its content.

    Raises:
        InputError: the checksum does not match.
    """
    if _ONNX_TRACE.search(content):
        _verify(path, content, list(_ONNX_ENTRY.finditer(content)))


def _verify(
    path: str | os.PathLike[str], content: bytes, entries: Sequence[re.Match[bytes]]
) -> None:
    """Raises an error unless there is one entry and its checksum matches."""
    if len(entries) != 1 or entries[0][1] != _digest(content, *entries[0].span(1)):
        raise InputError(f"{path} is damaged: its checksum does not match; use another copy of it")


def _digest(content: bytes, start: int, end: int) -> bytes:
    """Returns the checksum of a file that has a checksum from ``start`` to ``end``."""
    hasher = hashlib.blake2b(memoryview(content)[:start], digest_size=16)
    hasher.update(BLANK.encode())
    hasher.update(memoryview(content)[end:])
    return hasher.hexdigest().encode()
