"""The checksum in a safetensors file, which detects any change of the file's bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from sharnn.errors import InputError
from sharnn.io.tensor_file import SIZE_BYTES

KEY = "checksum"  # in the header's metadata
_BLANK = b"0" * 32  # in place of the checksum while it is computed
_START = b'{"__metadata__":{'  # of the header
_VALUE = re.compile(r"[0-9a-f]{32}")
_ENTRY = re.compile(rb'"%b"\s*:\s*"([0-9a-f]{32})"' % KEY.encode())


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
    entry = b'"%b":"%b",' % (KEY.encode(), _BLANK)
    header = _START + entry + header[len(_START) :]
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8 bytes
    header = len(header).to_bytes(SIZE_BYTES, "little") + header
    hasher = hashlib.blake2b(header, digest_size=16)
    hasher.update(rest)
    return header.replace(_BLANK, hasher.hexdigest().encode(), 1), rest


def verify_checksum(path: Path, content: bytes, metadata: Mapping[str, str]) -> None:
    """Verifies the checksum of a safetensors file; one without a checksum is accepted.

    Args:
        path: the file, for the error message.
        content: its content, with a valid header.
        metadata: the header's metadata.

    Raises:
        InputError: the checksum does not match.
    """
    if KEY not in metadata and not any(map(_VALUE.fullmatch, metadata.values())):
        return  # no checksum, not even one under a damaged name
    end = SIZE_BYTES + int.from_bytes(content[:SIZE_BYTES], "little")
    header = content[:end]
    entries = _ENTRY.findall(header)
    if len(entries) == 1:
        hasher = hashlib.blake2b(header.replace(entries[0], _BLANK, 1), digest_size=16)
        hasher.update(memoryview(content)[end:])
        if hasher.hexdigest().encode() == entries[0]:
            return
    raise InputError(f"{path} is damaged: its checksum does not match; use another copy of it")
