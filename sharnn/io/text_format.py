"""Signs that a file is not plain text: compression, UTF-16, and Windows line endings."""

from __future__ import annotations

import os

import numpy as np

from sharnn.io.byte_sources import Array, FileBytes

SIGNATURES = {
    b"\x1f\x8b": "gzip",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
# UTF-32 first: its little-endian mark begins with that of UTF-16.
BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
INSPECTED = 1_000_000  # bytes of a file that are read
RANDOM_BITS = 7.9  # entropy per byte from which bytes look random; text has 4 to 6
MIN_SIZE = 4096  # of shorter data the estimate of the entropy is too low


def describe_format(path: str | os.PathLike[str]) -> list[str]:
    """Returns remarks on a file that a model would learn badly from, as ends of sentences.

    Only the beginning of the file is read.

    Args:
        path: the file.

    Raises:
        InputError: the file can't be read.
    """
    content = FileBytes(path)[:INSPECTED]
    start = content[:16].tobytes()
    program = _find(SIGNATURES, start)
    if program is not None or _entropy(content) > RANDOM_BITS:
        how = f"with {program}" if program is not None else "or encrypted"
        return [f"looks compressed {how}: its bytes can't be predicted; use the original data"]
    encoding = _find(BYTE_ORDER_MARKS, start)
    if encoding is not None or _has_zeros_in_turn(content):
        encoding = encoding or "UTF-16"
        return [
            f"looks like {encoding}, which takes 2 or more bytes for a letter: convert it with "
            f"iconv -f {encoding} -t UTF-8"
        ]
    text = content.tobytes()
    if 2 * text.count(b"\r\n") > text.count(b"\n"):
        return [
            "has Windows line endings (CRLF), which a model learns to write too: "
            "remove them with tr -d '\\r'"
        ]
    return []


def _find(names: dict[bytes, str], start: bytes) -> str | None:
    """Returns the name of the first signature that a file starts with."""
    return next((name for mark, name in names.items() if start.startswith(mark)), None)


def _entropy(content: Array) -> float:
    """Returns the entropy in bits of single bytes; 0 for few bytes."""
    if len(content) < MIN_SIZE:
        return 0.0
    counts = np.bincount(content, minlength=256)
    shares = counts[counts > 0] / len(content)
    return float(-(shares * np.log2(shares)).sum())


def _has_zeros_in_turn(content: Array) -> bool:
    """Returns True if about every second byte is 0, as in UTF-16 text in the Latin alphabet."""
    shares = sorted(float((content[first::2] == 0).mean()) for first in (0, 1) if len(content) > 1)
    return bool(shares) and shares[0] < 0.01 and shares[1] > 0.5
