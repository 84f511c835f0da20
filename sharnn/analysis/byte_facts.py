"""What the bytes of a text are, without a model: their classes, the tokens, and what came before.

All of it is found on the whole text at once, by regular expressions or with numpy, in little more
than linear time.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Later names override earlier ones: a letter inside a link counts as link.
BYTE_CLASSES = ("letter", "digit", "whitespace", "sign", "tag", "link", "title")

# No span crosses a line's end, so that one lone "<" does not swallow half a file. The group is
# what counts: the tags around a title stay tags.
_SPANS = {
    "tag": re.compile(rb"(<[^<>\n]*>)"),
    "link": re.compile(rb"(\[\[[^\[\]\n]*\]\])"),
    "title": re.compile(rb"<title>([^<>\n]*)</title>"),
}
_TOKEN = re.compile(
    rb"[A-Za-z\x80-\xff]+"  # a word; the bytes of UTF-8 beyond ASCII count as letters
    rb"|[0-9]+"
    rb"|</?[A-Za-z][A-Za-z0-9]*/?>"  # a plain tag; one with attributes falls into pieces
    rb"|&#?[A-Za-z0-9]{1,10};"
    rb"|\[\[|\]\]|\{\{|\}\}|'{2,}|={2,}"
    rb"|[^A-Za-z0-9\x80-\xff]"  # any other single byte, a space or a line's end too
)


def _plain_classes() -> Array:
    """(256,) the class of each byte value outside of any span."""
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
    """The class of each byte: what it is, or the markup it stands in.

    A tag is ``<...>``, a link ``[[...]]`` and a title what stands in ``<title>...</title>``, each
    within one line. All bytes beyond ASCII count as letters: they are parts of UTF-8 characters.

    Args:
        text: the bytes.

    Returns:
        (bytes,) uint8, each an index into ``BYTE_CLASSES``.

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
    """Cuts a text into words, numbers, pieces of markup and single other bytes.

    Every byte belongs to exactly one token.

    Args:
        text: the bytes.

    Returns:
        The different strings in the order in which they first occur; for each token the number of
        its string; and for each token the places of its first byte and of its last.

    Example:
        >>> strings, which, first, last = tokens(b"to [[be]] to")
        >>> strings
        [b'to', b' ', b'[[', b'be', b']]']
        >>> which.tolist(), last.tolist()
        ([0, 1, 2, 3, 4, 1, 0], [1, 2, 4, 6, 8, 9, 11])
    """
    numbers: dict[bytes, int] = {}
    which, ends = [], []
    for match in _TOKEN.finditer(text):
        which.append(numbers.setdefault(match.group(), len(numbers)))
        ends.append(match.end())
    last = np.array(ends, dtype=np.int64) - 1
    first = np.concatenate([np.zeros(1, dtype=np.int64), last + 1])[: len(last)]
    return list(numbers), np.array(which, dtype=np.int64), first, last


def earlier_ends(text: bytes, length: int) -> Array:
    """Where the last few bytes occurred before: the newest earlier place, for every place.

    Args:
        text: the bytes.
        length: how many bytes must be the same; the two occurrences may overlap.

    Returns:
        (bytes,) int64. For each place, the place of the last byte of the newest earlier occurrence
        of the ``length`` bytes that end there; -1 where there is none.

    Example:
        >>> earlier_ends(b"abxabyab", 2).tolist()
        [-1, -1, -1, -1, 1, -1, -1, 4]
    """
    found = np.full(len(text), -1, dtype=np.int64)
    windows = len(text) - length + 1
    if windows < 2:
        return found
    symbols = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    code = symbols[:windows].copy()  # (windows,) one number for each different string
    for offset in range(1, length):
        code = code * 256 + symbols[offset : offset + windows]
        if offset % 3 == 0:  # Numbered anew before it can overflow: exact, unlike a hash.
            code = np.unique(code, return_inverse=True)[1].reshape(-1)
    # A stable sort puts equal strings side by side in the order of their places.
    order = np.argsort(code, kind="stable")
    same = code[order[1:]] == code[order[:-1]]
    found[order[1:][same] + length - 1] = order[:-1][same] + length - 1
    return found
