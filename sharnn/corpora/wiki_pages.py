"""Pages of a MediaWiki dump: their titles, and training text without held-out pages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sharnn.io.byte_sources import as_bytes

# A page ends with its end tag or, if it is cut off, before the next page or with the text.
PAGE = re.compile(
    rb"[ \t]*<page>\s*<title>(.*?)</title>.*?(?:</page>\n?|(?=[ \t]*<page>)|\Z)", re.DOTALL
)


def page_titles(data: Any) -> list[str]:
    """Returns the titles of the pages that begin in a text, in order.

    Args:
        data: bytes, a path, a uint8 tensor or array, or a part of a corpus.

    Raises:
        InputError: ``data`` is none of these, or a file can't be read.

    Example:
        >>> page_titles(b"<page> <title>Art</title> ... </page><page> <title>Aikido</title>")
        ['Art', 'Aikido']
    """
    return [page[1].decode(errors="replace") for page in PAGE.finditer(_content(data))]


def training_text(parts: Iterable[Any], held_out: Iterable[Any]) -> bytes:
    """Concatenates texts, without pages whose titles also occur in held-out texts.

    Two dumps can have versions of the same page. A model that is trained on one of them and tested
    on the other has learned part of the test text.

    Args:
        parts: the texts, in any of the forms that `page_titles` accepts. A page that is cut off at
            the end is removed too; the rest of a page whose start is missing is kept, because its
            title is not known.
        held_out: texts of which no page is wanted, such as validation and test parts.

    Raises:
        InputError: a text has none of these forms, or a file can't be read.

    Example:
        >>> old = b"<page> <title>Art</title> 2006 </page><page> <title>Zen</title> 2006 </page>"
        >>> new = b"<page> <title>Art</title> 2016 </page>"
        >>> training_text([old], held_out=[new])
        b'<page> <title>Zen</title> 2006 </page>'
    """
    titles = {title for data in held_out for title in page_titles(data)}

    def keep(page: re.Match[bytes]) -> bytes:
        return b"" if page[1].decode(errors="replace") in titles else page[0]

    return b"".join(PAGE.sub(keep, _content(data)) for data in parts)


def _content(data: Any) -> bytes:
    """Returns all bytes of a text."""
    return as_bytes(data)[:].tobytes()
