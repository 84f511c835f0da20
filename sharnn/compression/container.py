"""The file that compression writes: what its header says, and how damage to it is noticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator

from sharnn.errors import InputError
from sharnn.model import SHARNN

MAGIC = b"\x9dSHA"  # its first byte is no text, so that no text file passes for one
# To be raised whenever the same model would predict otherwise: another segment or rate of
# learning, other frequencies, another order of the lanes.
VERSION = 1
MOST_LANES = 1024  # each has a memory of its own: a header must not ask for all there is
STORED, CODED, LEARNED = range(3)  # how the content was made into the payload
_LAYOUT = struct.Struct("<4s B B H Q 8s 16s")  # little-endian, without gaps
_CHECK = 8  # bytes of the checksum over header and payload
HEADER_BYTES = _LAYOUT.size + _CHECK


@dataclasses.dataclass(frozen=True)
class Container:
    """A compressed file.

    Layout: magic bytes, version (1 byte), method (1), lanes (2), length of the content (8),
    fingerprint of the model (8), checksum of the content (16), checksum of all the rest of the
    file (8), payload. Numbers are little-endian, checksums are BLAKE2b.

    Args:
        method: 0 if the payload is the content itself, 1 if it is coded with a model, 2 if the
            model learned meanwhile.
        lanes: pieces that were coded side by side.
        length: bytes of the content.
        fingerprint: of the model, see `fingerprint`.
        checksum: of the content, see `checksum`.
        payload: what the coder wrote.

    Example:
        >>> made = Container(STORED, 1, 5, bytes(8), checksum(b"hello"), b"hello")
        >>> len(made.to_bytes()) - len(b"hello")
        48
        >>> Container.from_bytes(made.to_bytes()) == made
        True
    """

    method: int
    lanes: int
    length: int
    fingerprint: bytes
    checksum: bytes
    payload: bytes

    def to_bytes(self) -> bytes:
        """The whole file.

        Returns:
            Its bytes.
        """
        header = _LAYOUT.pack(
            MAGIC,
            VERSION,
            self.method,
            self.lanes,
            self.length,
            self.fingerprint,
            self.checksum,
        )
        return header + _digest(_CHECK, [header, self.payload]) + self.payload

    @classmethod
    def from_bytes(cls, content: bytes) -> Container:
        """Reads a whole file.

        Args:
            content: its bytes.

        Returns:
            What it holds; every byte of it has been checked.

        Raises:
            InputError: it is no such file, of another version, cut short or altered.
        """
        if content[: len(MAGIC)] != MAGIC:
            raise InputError("this is no file that sharnn compressed")
        if len(content) < HEADER_BYTES:
            raise InputError(
                f"the file is cut short: {len(content)} bytes are less than its header"
            )
        header, payload = content[: _LAYOUT.size], content[HEADER_BYTES:]
        _, version, method, lanes, length, model, content_sum = _LAYOUT.unpack(header)
        if version != VERSION:
            raise InputError(
                f"the file is of format {version}, this sharnn reads format {VERSION}: "
                "use the version that wrote it"
            )
        if _digest(_CHECK, [header, payload]) != content[_LAYOUT.size : HEADER_BYTES]:
            raise InputError("the file is cut short or altered: its checksum is another")
        most = max(1, min(length, MOST_LANES))
        whole = length == len(payload) and content_sum == checksum(payload)
        if method > LEARNED or not 1 <= lanes <= most or (method == STORED and not whole):
            raise InputError(
                f"the file is not by sharnn: method {method}, {lanes} lanes, "
                f"{len(payload)} bytes for {length}"
            )
        return cls(method, lanes, length, model, content_sum, payload)


def checksum(content: bytes) -> bytes:
    """The checksum that tells whether content came back.

    Args:
        content: any bytes.

    Returns:
        16 bytes of BLAKE2b.
    """
    return _digest(16, [content])


def fingerprint(model: SHARNN) -> bytes:
    """A number for a model's predictions: equal weights and shape, equal fingerprint.

    Args:
        model: the model.

    Returns:
        8 bytes of BLAKE2b over its configuration, without dropout, and its float32 weights.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> fingerprint(SHARNN(ModelConfig(dim=8, boom_dim=32))).hex() != bytes(8).hex()
        True
    """
    config = {name: value for name, value in model.config.to_dict().items() if name != "dropout"}

    def parts() -> Iterator[bytes]:
        yield json.dumps(config, sort_keys=True).encode()
        for name, weight in sorted(model.state_dict().items()):
            yield name.encode()
            yield weight.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()

    return _digest(8, parts())


def _digest(size: int, parts: Iterable[bytes]) -> bytes:
    hasher = hashlib.blake2b(digest_size=size)
    for part in parts:
        hasher.update(part)
    return hasher.digest()
