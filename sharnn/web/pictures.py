"""A page with controls that shows pictures drawn beforehand, one for each of their positions."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sharnn.web.arrays import pack
from sharnn.web.page import asset, frame, shell, to_json

SCRIPTS = "arrays colours dom pictures".split()
TITLE = "Figure with controls"  # of a frame; in a book a description replaces it
COLUMN = 600  # pixels: a typical column of text, to estimate the height of a frame


@dataclass(frozen=True)
class Control:
    """A control of the page.

    Attributes:
        name: the name beside the control.
        labels: the text that is shown at each position.
        initial: the initial position.
        slider: True for a slider, False for a list of choices.
    """

    name: str
    labels: list[str]
    initial: int
    slider: bool


def picture_page(controls: Sequence[Control], pictures: Sequence[str]) -> str:
    """Returns the page: an HTML document that needs no other file and no network.

    Args:
        controls: the controls.
        pictures: an SVG document of matplotlib's for each combination of positions, those of the
            last control changing fastest.

    Example:
        >>> n = Control("n", ["1", "2"], initial=1, slider=True)
        >>> svg = '<?xml version="1.0"?><svg height="36pt" viewBox="0 0 72 36" width="72pt"/>'
        >>> 'width="72" height="36"' in picture_page([n], [svg, svg])
        True
    """
    initial = 0
    for control in controls:
        initial = initial * len(control.labels) + control.initial
    pictures = [picture[picture.index("<svg") :] for picture in pictures]
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', pictures[0])[0]
    # The initial picture is in the document itself, and needs no script.
    source = base64.b64encode(pictures[initial].encode()).decode()
    body = (
        '<main>\n<div id="controls" role="group" aria-label="Controls"></div>\n'
        f'<img id="picture" alt="{TITLE}" width="{width}" height="{height}" '
        f'src="data:image/svg+xml;base64,{source}">\n</main>\n'
    )
    style = asset("page.css") + asset("pictures.css")
    before, after = shell(TITLE, style, body, [asset(f"{name}.js") for name in SCRIPTS])
    content = {"controls": [asdict(control) for control in controls], **pack_lines(pictures)}
    return f"{before}{to_json(content)}{after}"


def pack_lines(texts: Sequence[str]) -> dict[str, Any]:
    """Packs similar texts: each different line once, and the numbers of the lines of each text."""
    lines = "\n".join(texts).split("\n")
    numbers = {line: i for i, line in enumerate(dict.fromkeys(lines))}
    different = np.frombuffer("\n".join(numbers).encode(), np.uint8)
    return {
        "lines": pack(torch.from_numpy(different.copy()), "uint8"),
        "numbers": pack(torch.tensor([numbers[line] for line in lines]), "int32"),
        "lengths": [text.count("\n") + 1 for text in texts],
    }


def picture_frame(page: str, ratio: float, num_controls: int) -> str:
    """Returns the HTML of a frame that contains the page.

    Args:
        page: the page.
        ratio: width of the pictures divided by their height.
        num_controls: number of controls.
    """
    return frame(page, TITLE, round(COLUMN / ratio) + 24 + 40 * num_controls)


def setup(app: Any) -> dict[str, Any]:
    """Registers the module as an extension of Sphinx, for books with figures with controls.

    Notebooks that run during the build show each `sharnn.notebook.Knobs` as such a page, and its
    frame is described by the alternative text in the cell's metadata (``mystnb: image: alt``).
    """
    os.environ.setdefault("SHARNN_KNOBS", "pictures")
    app.connect("doctree-read", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _describe(app: Any, document: Any) -> None:
    """Gives the frame of each figure with controls the alternative text of its cell."""
    from docutils import nodes

    before = f'title="{html.escape(TITLE)}"'
    for cell in document.findall(nodes.container):
        settings = cell.get("cell_metadata", {}).get("mystnb", {})
        description = settings.get("image", {}).get("alt")
        for output in cell.findall(nodes.raw) if description else ():
            after = f'title="{html.escape(description)}"'
            output.children = [nodes.Text(output.astext().replace(before, after, 1))]
