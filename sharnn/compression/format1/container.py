"""The file format of compressed archives, with checksums that detect damage."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterable

from sharnn.errors import InputError

MAGIC = b"\x9dSHA"  # the first byte is not valid text, so no text file passes for an archive
# Increase it with every change that makes the same model predict other frequencies or read the
# streams in another order, such as another segment length or learning rate of `LearningPredictor`.
VERSION = 1
MAX_STREAMS = 1024  # each stream has its own memory, and a forged header must not exhaust RAM
# Values of `Container.method`. An archive of method 2 comes from an earlier `LearningPredictor`,
# which also trained the vectors.
STORED, CODED, LEARNED_ALL, LEARNED = range(4)
_LAYOUT = struct.Struct("<4s B B H Q 8s 16s")  # little-endian, without padding
_CHECKSUM_BYTES = 8  # size of the checksum over header and payload
HEADER_BYTES = _LAYOUT.size + _CHECKSUM_BYTES


@dataclasses.dataclass(frozen=True)
class Container:
    """The content of an archive.

    Layout: magic bytes, version (1 byte), method (1), number of streams (2), length of the content
    (8), fingerprint of the model (8), checksum of the content (16), checksum of the rest of the
    file (8), payload. Numbers are little-endian; checksums are BLAKE2b.

    Args:
        method: 0 if the payload is the content itself, 1 if it is coded with a model, 2 or 3 if the
            model also learned while coding: all of its weights (2), or its matrices (3).
        num_streams: number of streams that were coded in parallel.
        length: size of the content in bytes.
        fingerprint: of the model, from `fingerprint`.
        checksum: of the content, from `checksum`.
        payload: the content or its code.

    Example:
        >>> archive = Container(STORED, 1, 5, bytes(8), checksum(b"hello"), b"hello")
        >>> len(archive.to_bytes()) - len(b"hello")
        48
        >>> Container.from_bytes(archive.to_bytes()) == archive
        True
    """

    method: int
    num_streams: int
    length: int
    fingerprint: bytes
    checksum: bytes
    payload: bytes

    def to_bytes(self) -> bytes:
        """Returns the archive as bytes: the header, then the payload."""
        header = _LAYOUT.pack(
            MAGIC,
            VERSION,
            self.method,
            self.num_streams,
            self.length,
            self.fingerprint,
            self.checksum,
        )
        return header + _digest(_CHECKSUM_BYTES, [header, self.payload]) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Container:
        """Parses an archive and verifies its checksum.

        Args:
            data: from `to_bytes`.

        Raises:
            InputError: ``data`` is not an archive, or is of another version, truncated or damaged.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise InputError("not a sharnn archive")
        if len(data) < HEADER_BYTES:
            raise InputError(
                f"the archive is truncated: its header has {HEADER_BYTES} bytes, got {len(data)}"
            )
        header, payload = data[: _LAYOUT.size], data[HEADER_BYTES:]
        _, version, method, num_streams, length, model, content_checksum = _LAYOUT.unpack(header)
        if version != VERSION:
            raise InputError(
                f"the archive has format {version}, but this version of sharnn reads format "
                f"{VERSION}: use the version that wrote it"
            )
        if _digest(_CHECKSUM_BYTES, [header, payload]) != data[_LAYOUT.size : HEADER_BYTES]:
            raise InputError("the archive is truncated or damaged: its checksum does not match")
        # The checksum matches, but a program other than sharnn may have computed it.
        stored = length == len(payload) and content_checksum == checksum(payload)
        if (
            method > LEARNED
            or not 1 <= num_streams <= max(1, min(length, MAX_STREAMS))
            or (method == STORED and not stored)
        ):
            raise InputError(
                f"the archive is invalid: method {method}, {num_streams} streams, "
                f"{len(payload)} bytes for {length}"
            )
        return cls(method, num_streams, length, model, content_checksum, payload)


def checksum(content: bytes) -> bytes:
    """Returns the checksum of an archive's content, 16 bytes of BLAKE2b."""
    return _digest(16, [content])


def _digest(size: int, parts: Iterable[bytes]) -> bytes:
    hasher = hashlib.blake2b(digest_size=size)
    for part in parts:
        hasher.update(part)
    return hasher.digest()
