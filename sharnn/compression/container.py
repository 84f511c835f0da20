"""The file format of compressed archives: a header and frames, each with checksums."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

from sharnn.errors import InputError

MAGIC = b"\x9dSHA"  # the first byte is not valid text, so no text file passes for an archive
# Increase it with every change that makes the same model predict other frequencies or read the
# streams in another order.
VERSION = 2
# Values of `Header.method`: the sum of `CODED` and of the others that apply, or `STORED`.
STORED, CODED, LEARNED, MIXED = 0, 1, 2, 4
METHODS = (STORED, CODED, CODED | LEARNED, CODED | MIXED, CODED | LEARNED | MIXED)
MAX_STREAMS = 1024  # each stream has its own memory, and a forged header must not exhaust RAM
FRAME_BYTES = 65_536  # of the content, in a frame

CHECKSUM_BYTES = 8
_HEADER = struct.Struct("<4s B B H Q 8s")  # little-endian, without padding
_FRAME = struct.Struct(f"<I {CHECKSUM_BYTES}s {CHECKSUM_BYTES}s")
HEADER_BYTES = _HEADER.size + CHECKSUM_BYTES


@dataclasses.dataclass(frozen=True)
class Header:
    """The first 32 bytes of an archive.

    Layout: magic bytes, version (1 byte), method (1), number of streams (2), length of the content
    (8), fingerprint of the model (8), checksum of these (8). Numbers are little-endian; checksums
    are the first bytes of SHA-256.

    Args:
        method: 0 if the code is the content itself; otherwise the sum of 1, 2 if the model learned
            while coding, and 4 if its predictions were mixed with those of counts and matches.
        num_streams: number of streams that are coded in parallel.
        length: size of the content in bytes.
        fingerprint: of the model, see `sharnn.weights.fingerprint`.

    Example:
        >>> header = Header(CODED, 1, 5, bytes(8))
        >>> Header.from_bytes(header.to_bytes()) == header
        True
    """

    method: int
    num_streams: int
    length: int
    fingerprint: bytes

    def to_bytes(self) -> bytes:
        """Returns the header as bytes."""
        header = _HEADER.pack(
            MAGIC, VERSION, self.method, self.num_streams, self.length, self.fingerprint
        )
        return header + checksum(header)

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Parses the start of an archive.

        Raises:
            InputError: ``data`` is not an archive, or is of another version, or its header is
                truncated or damaged.
        """
        if version_of(data) != VERSION:
            raise InputError(
                f"the archive has format {version_of(data)}, but this version of sharnn reads "
                f"formats 1 and {VERSION}: use the version that wrote it"
            )
        if len(data) < HEADER_BYTES:
            raise InputError(
                f"the archive is truncated: its header has {HEADER_BYTES} bytes, got {len(data)}"
            )
        header = data[: _HEADER.size]
        if checksum(header) != data[_HEADER.size : HEADER_BYTES]:
            raise InputError("the archive's header is damaged: its checksum does not match")
        _, _, method, num_streams, length, model = _HEADER.unpack(header)
        # The checksum matches, but a program other than sharnn may have computed it.
        if method not in METHODS or not 1 <= num_streams <= max(1, min(length, MAX_STREAMS)):
            raise InputError(
                f"the archive is invalid: method {method}, {num_streams} streams, {length} bytes"
            )
        return cls(method, num_streams, length, model)

    @property
    def steps_per_frame(self) -> int:
        """Number of bytes of each stream in a frame."""
        return max(1, FRAME_BYTES // self.num_streams)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A part of an archive, which holds about 64 KiB of the content.

    Layout: size of the code (4 bytes), checksum of the header, the frame's number and the code (8),
    checksum of the content (8), the code.

    Args:
        code: the coded content.
        checksum: of the content in the order in which it was coded.
    """

    code: bytes
    checksum: bytes

    def to_bytes(self, header: Header, number: int) -> bytes:
        """Returns the frame as bytes; ``number`` is its place in the archive, from 0."""
        return (
            _FRAME.pack(len(self.code), _code_checksum(header, number, self.code), self.checksum)
            + self.code
        )


def read_frame(header: Header, data: bytes, start: int, number: int) -> tuple[Frame, int]:
    """Returns the frame at an offset of an archive, and the offset at which it ends.

    Raises:
        InputError: the frame is truncated, or its checksum does not match.
    """
    begin = start + _FRAME.size
    if begin <= len(data):
        size, code_checksum, content_checksum = _FRAME.unpack_from(data, start)
        code = data[begin : begin + size]
        if len(code) == size and _code_checksum(header, number, code) == code_checksum:
            return Frame(code, content_checksum), begin + size
    raise InputError(f"the archive is truncated or damaged at byte {start:,}")


def max_length(size: int) -> int:
    """Returns the maximum length of the content of an archive with ``size`` bytes.

    A forged header can't make a reader allocate much more memory than the file justifies.
    """
    return max(0, size - HEADER_BYTES) // _FRAME.size * FRAME_BYTES


def version_of(data: bytes) -> int:
    """Returns the version of an archive's format.

    Raises:
        InputError: ``data`` are not an archive.

    Example:
        >>> version_of(Header(CODED, 1, 5, bytes(8)).to_bytes())
        2
        >>> version_of(b"plain text")
        Traceback (most recent call last):
        ...
        sharnn.errors.InputError: not a sharnn archive
    """
    if data[: len(MAGIC)] != MAGIC or len(data) == len(MAGIC):
        raise InputError("not a sharnn archive")
    return data[len(MAGIC)]


def checksum(*parts: bytes) -> bytes:
    """Returns the first 8 bytes of SHA-256."""
    return hashlib.sha256(b"".join(parts)).digest()[:CHECKSUM_BYTES]


def _code_checksum(header: Header, number: int, code: bytes) -> bytes:
    # With header and number, no frame passes for one of another archive or at another place.
    return checksum(header.to_bytes(), number.to_bytes(4, "little"), code)
