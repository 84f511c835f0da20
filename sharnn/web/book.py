"""A Sphinx extension for interactive parts of a book: a playground, and figures with controls."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import Any

from sharnn.checkpoint import load
from sharnn.io.files import write_atomically
from sharnn.web.page import asset
from sharnn.web.pictures import TITLE
from sharnn.web.playground import Playground
from sharnn.web.scripts import export_web

FOLDER = Path("_static", "sharnn")  # in the folder of the built pages
SCRIPT = "book.js"


def setup(app: Any) -> dict[str, Any]:
    """Registers the extension with Sphinx.

    The configuration value ``sharnn_model`` is the model, an argument of `sharnn.load`. A page
    shows the playground in an element
    ``<div class="sharnn-page" data-page="playground" data-title="..."></div>``.
    Notebooks that run during the build show a `sharnn.notebook.Knobs` as pictures.
    """
    os.environ.setdefault("SHARNN_KNOBS", "pictures")
    app.add_config_value("sharnn_model", "wiki-small", "html", [str])
    app.add_js_file(f"sharnn/{SCRIPT}")
    app.connect("doctree-read", _describe_figures)
    app.connect("build-finished", _write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _describe_figures(app: Any, document: Any) -> None:
    """Gives the frame of each figure with controls the alternative text of its cell."""
    from docutils import nodes

    for cell in document.findall(nodes.container):
        settings = cell.get("cell_metadata", {}).get("mystnb", {})
        description = settings.get("image", {}).get("alt")
        for output in cell.findall(nodes.raw) if description else ():
            before, after = (html.escape(title) for title in (TITLE, description))
            text = output.astext().replace(f'title="{before}"', f'title="{after}"', 1)
            output.children = [nodes.Text(text)]


def _write_files(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_files(app.config.sharnn_model, Path(app.outdir) / FOLDER)


def write_files(name: str, folder: Path) -> None:
    """Writes the scripts that the pages of a book load.

    Args:
        name: the model, an argument of `sharnn.load`.
        folder: the folder, which is created.

    Raises:
        InputError: the model can't be loaded, or a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, weights = load(name), f"{Path(name).stem}.js"
    export_web(model, folder / weights)
    playground = json.dumps(Playground(model, Path(name).stem, weights=weights).page())
    write_atomically(
        folder / "playground.js", f"window.sharnnPages.playground = {playground};\n".encode()
    )
    write_atomically(folder / SCRIPT, asset(SCRIPT).encode())
