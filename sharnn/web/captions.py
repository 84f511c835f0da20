"""A Sphinx extension that makes a figure of a picture and the line in italics below it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Registers the extension with Sphinx.

    A paragraph that is only a picture, followed by one that is only in italics, becomes a figure
    with a caption. Both are plain Markdown, so a notebook shows them too, wherever it is opened.
    Only the figures of chapters are numbered: "Fig. 1" of a page without a number of its own would
    compete with "Fig. 1.1" of the first chapter.
    """
    app.connect("doctree-read", _make_figures)
    app.connect("env-check-consistency", _number_chapters_only)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _make_figures(app: Any, doctree: Any) -> None:
    from docutils import nodes

    def is_only(child: Any, kind: Any) -> bool:
        """Returns True if a node is of a kind, and all that its paragraph contains."""
        parent = child.parent
        return isinstance(child, kind) and isinstance(parent, nodes.paragraph) and len(parent) == 1

    for image in list(doctree.findall(nodes.image)):
        below = image.parent.next_node(descend=False, siblings=True)
        if not is_only(image, nodes.image) or not below or not is_only(below[0], nodes.emphasis):
            continue
        # The theme puts a white card behind pictures in dark mode; these have a dark mode.
        image["classes"].append("dark-light")
        caption = nodes.caption("", "", *below[0].children)
        below.parent.remove(below)
        name = f"figure-{Path(image['uri']).stem}"
        image.parent.replace_self(nodes.figure("", image.deepcopy(), caption, ids=[name]))


def _number_chapters_only(app: Any, env: Any) -> None:
    """Drops the figure numbers of pages that are no chapters."""
    for page in env.toc_fignumbers:
        if not re.match(r"\d\d-", page):
            env.toc_fignumbers[page] = {}
