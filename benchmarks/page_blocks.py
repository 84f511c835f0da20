"""Results on pages that are plain text, such as README.md: blocks between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import sharnn
from sharnn.io.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Returns a table in Markdown.

    Args:
        header: names of the columns.
        rows: the cells of each row.
        left: number of columns that are not aligned right.

    Example:
        >>> print(markdown_table(["model", "bits"], [["small", "2.1"]]), end="")
        | model | bits |
        | --- | ---: |
        | small | 2.1 |
    """
    ruler = [*["---"] * left, *["---:"] * (len(header) - left)]
    lines = [" | ".join(cells) for cells in [header, ruler, *rows]]
    return "".join(f"| {line} |\n" for line in lines)


def with_block(text: str, name: str, new: str) -> str:
    r"""Returns a page's text with a new block between the markers of that name.

    Raises:
        sharnn.InputError: the page has no such markers.

    Example:
        >>> with_block("<!-- race -->\nold\n<!-- /race -->", "race", "new\n")
        '<!-- race -->\nnew\n<!-- /race -->'
    """
    start_marker, end_marker = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, start, rest = text.partition(start_marker)
    _, end, after = rest.partition(end_marker)
    if not (start and end):
        raise sharnn.InputError(f"a page lacks the markers {start_marker.strip()} and {end_marker}")
    return f"{before}{start}{new}{end}{after}"


def write_block(pages: Iterable[Path], name: str, new: str) -> None:
    """Replaces the block of that name on each page.

    Raises:
        sharnn.InputError: a page can't be read or written, or has no such markers.
    """
    for page in pages:
        write_atomically(page, with_block(page.read_text(), name, new).encode())
