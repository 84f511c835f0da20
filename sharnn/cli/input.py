"""Input of a command: a file, or standard input."""

from __future__ import annotations

import sys

from sharnn.errors import InputError
from sharnn.io.files import read_file

STANDARD_STREAM = "-"  # in place of a file: standard input or output


def read_input(source: str, limit: int | None = None) -> bytes:
    """Returns all bytes of a file, or of standard input.

    Args:
        source: the file, or ``"-"`` for standard input.
        limit: maximum number of bytes; None for any number.

    Raises:
        InputError: the input can't be read, or is longer than ``limit``.
    """
    if source != STANDARD_STREAM:
        return read_file(source, limit)
    binary = getattr(sys.stdin, "buffer", None)
    if binary is None:  # a notebook has no standard input
        raise InputError("can't read standard input: it is closed")
    content: bytes = binary.read() if limit is None else binary.read(limit + 1)
    if limit is not None and len(content) > limit:
        raise InputError(f"can't read standard input: it has more than {limit:,} bytes")
    return content
