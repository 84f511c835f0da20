"""Pages that need no other file: styles, elements, scripts and data in one document."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

# A page may run its own scripts, which include WebAssembly and a worker, and show its own pictures.
# It makes no request.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)


def asset(name: str, package: str = "sharnn.web") -> str:
    """Returns the text of a file in the folder ``assets`` of a package."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def shell(title: str, style: str, body: str, scripts: Sequence[str]) -> tuple[str, str]:
    """Returns the parts of a page before and after its data, which is the JSON of ``#payload``.

    Args:
        title: the document's title.
        style: the style sheet.
        body: the elements.
        scripts: scripts that share one scope, whose function ``start`` is called last.
    """
    before = (
        '<!doctype html>\n<html lang="en" data-theme="light">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<noscript><p>This page needs JavaScript.</p></noscript>\n"
        f'{body}<script type="application/json" id="payload">'
    )
    script = "\n".join(scripts)
    after = (
        "</script>\n"
        f'<script>\n"use strict";\n(() => {{\n{script}\nstart();\n}})();\n</script>\n'
        "</body>\n</html>\n"
    )
    return before, after


def to_json(content: Any) -> str:
    r"""Returns data as ASCII JSON that is safe inside a script element.

    Example:
        >>> to_json({"text": "</script>"})
        '{"text": "\\u003c/script>"}'
    """
    # Only "<" could end the element; JSON allows it as an escape.
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def frame(document: str, title: str, height: int) -> str:
    """Returns the HTML of a frame that contains a page, with its own styles and key bindings.

    Args:
        document: the HTML of the page.
        title: the frame's title, for screen readers.
        height: height in pixels, until the page sets its own.
    """
    return (
        f'<iframe class="sharnn-frame" title="{html.escape(title)}" '
        f'srcdoc="{html.escape(document)}" '
        f'style="width: 100%; height: {height}px; border: 0"></iframe>'
    )
