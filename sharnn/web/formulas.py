"""A Sphinx extension that keeps a formula in a line of text together with its punctuation."""

from __future__ import annotations

import re
from typing import Any

# With quotation marks, which Sphinx has made curly; and the rest of a word, as in "i-th".
BEFORE = re.compile("[(\\[\u201c\u2018]+$")
AFTER = re.compile("^(?:[-\u2013]\\w+|[\u2019']s)?[,.;:!?)\\]\u201d\u2019\u2026]*")


def setup(app: Any) -> dict[str, Any]:
    """Registers the extension with Sphinx.

    A browser may begin a line between a formula and the comma after it. Formula and punctuation
    become an element of the class ``one-line``, in which the style sheet forbids that.
    """
    app.connect("doctree-read", _keep_together)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _keep_together(app: Any, doctree: Any) -> None:
    from docutils import nodes

    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        at = parent.index(formula)
        before = after = ""
        if at + 1 < len(parent) and isinstance(parent[at + 1], nodes.Text):
            after = AFTER.findall(str(parent[at + 1]))[0]
        if at > 0 and isinstance(parent[at - 1], nodes.Text):
            before = "".join(BEFORE.findall(str(parent[at - 1])))
        if not before and not after:
            continue
        # By position: `replace` looks for an equal text, and finds an earlier one.
        if after:
            parent[at + 1] = nodes.Text(str(parent[at + 1])[len(after) :])
        if before:
            parent[at - 1] = nodes.Text(str(parent[at - 1])[: -len(before)])
        together = nodes.inline(classes=["one-line"])
        parent[at] = together
        together += [nodes.Text(before), formula, nodes.Text(after)]
