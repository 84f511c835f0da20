"""Properties of a text's bytes, found without a model: classes, tokens and earlier occurrences.

Regular expressions and numpy process the whole text at once, in time that is almost linear.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Later names take precedence: a letter inside a link counts as link.
BYTE_CLASSES = ("letter", "digit", "whitespace", "sign", "tag", "link", "title")

# A span never crosses the end of a line. Otherwise a single "<" could extend over half a file.
# Only the group belongs to the class: the tags around a title remain tags.
_SPANS = {
    "tag": re.compile(rb"(<[^<>\n]*>)"),
    "link": re.compile(rb"(\[\[[^\[\]\n]*\]\])"),
    "title": re.compile(rb"<title>([^<>\n]*)</title>"),
}
_TOKEN = re.compile(
    rb"[A-Za-z\x80-\xff]+"  # a word; the bytes of UTF-8 beyond ASCII count as letters
    rb"|[0-9]+"
    rb"|</?[A-Za-z][A-Za-z0-9]*/?>"  # a plain tag; a tag with attributes is split
    rb"|&#?[A-Za-z0-9]{1,10};"
    rb"|\[\[|\]\]|\{\{|\}\}|'{2,}|={2,}"
    rb"|[^A-Za-z0-9\x80-\xff]"  # any other single byte, including spaces and line ends
)


def _plain_classes() -> Array:
    """Returns the class of each byte value outside any span, (256,)."""
    table = np.full(256, BYTE_CLASSES.index("sign"), dtype=np.uint8)
    table[128:] = BYTE_CLASSES.index("letter")
    for byte in range(128):
        if chr(byte).isalpha():
            table[byte] = BYTE_CLASSES.index("letter")
        elif chr(byte).isdigit():
            table[byte] = BYTE_CLASSES.index("digit")
        elif chr(byte).isspace():
            table[byte] = BYTE_CLASSES.index("whitespace")
    return table


def byte_classes(text: bytes) -> Array:
    """Classifies each byte by its value or by the markup that contains it.

    A tag is ``<...>``, a link is ``[[...]]``, and a title is the text in ``<title>...</title>``,
    each within one line. All bytes beyond ASCII count as letters, because they are parts of UTF-8
    characters.

    Returns:
        (bytes,) uint8, indices into ``BYTE_CLASSES``.

    Example:
        >>> [BYTE_CLASSES[i] for i in byte_classes(b"a [[b]]<")]
        ['letter', 'whitespace', 'link', 'link', 'link', 'link', 'link', 'sign']
    """
    classes = _plain_classes()[np.frombuffer(text, dtype=np.uint8)]
    for name, pattern in _SPANS.items():
        for match in pattern.finditer(text):
            classes[slice(*match.span(1))] = BYTE_CLASSES.index(name)
    return classes


def tokens(text: bytes) -> tuple[list[bytes], Array, Array, Array]:
    """Splits a text into words, numbers, markup and other single bytes.

    Every byte belongs to exactly one token.

    Returns:
        The distinct strings in order of first occurrence, and three int64 arrays (tokens,): the
        index of each token's string, the position of its first byte and that of its last byte.

    Example:
        >>> strings, which, first, last = tokens(b"to [[be]] to")
        >>> strings
        [b'to', b' ', b'[[', b'be', b']]']
        >>> which.tolist(), last.tolist()
        ([0, 1, 2, 3, 4, 1, 0], [1, 2, 4, 6, 8, 9, 11])
    """
    indices: dict[bytes, int] = {}
    which, ends = [], []
    for match in _TOKEN.finditer(text):
        which.append(indices.setdefault(match.group(), len(indices)))
        ends.append(match.end())
    last = np.array(ends, dtype=np.int64) - 1
    first = np.concatenate([np.zeros(1, dtype=np.int64), last + 1])[: len(last)]
    return list(indices), np.array(which, dtype=np.int64), first, last


def earlier_ends(text: bytes, length: int) -> Array:
    """Finds, for each position, the latest earlier occurrence of the bytes that end there.

    Args:
        text: the bytes to search.
        length: number of bytes that must match; the two occurrences may overlap.

    Returns:
        (bytes,) int64: for each position, the position of the last byte of the latest earlier
        occurrence of the ``length`` bytes that end there, or -1 if there is none.

    Example:
        >>> earlier_ends(b"abxabyab", 2).tolist()
        [-1, -1, -1, -1, 1, -1, -1, 4]
    """
    found = np.full(len(text), -1, dtype=np.int64)
    windows = len(text) - length + 1
    if windows < 2:
        return found
    symbols = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    code = symbols[:windows].copy()  # (windows,) one number for each distinct string
    for offset in range(1, length):
        code = code * 256 + symbols[offset : offset + windows]
        if offset % 3 == 0:  # Renumber before the codes overflow. Unlike a hash, this is exact.
            code = np.unique(code, return_inverse=True)[1].reshape(-1)
    # A stable sort places equal strings next to each other, in the order of their positions.
    order = np.argsort(code, kind="stable")
    same = code[order[1:]] == code[order[:-1]]
    found[order[1:][same] + length - 1] = order[:-1][same] + length - 1
    return found
