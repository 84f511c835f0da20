"""A Sphinx extension that puts a model and its playground beside the pages of a book."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sharnn.checkpoint import load
from sharnn.io.files import write_atomically
from sharnn.web.model_page import SHARED_MODEL, shared_script
from sharnn.web.page import asset
from sharnn.web.playground import Playground
from sharnn.web.scripts import export_web

FOLDER = Path("_static", "sharnn")  # in the folder of the built pages
SCRIPT = "book.js"


def setup(app: Any) -> dict[str, Any]:
    """Registers the extension with Sphinx.

    The configuration value ``sharnn_model`` is the model, an argument of `sharnn.load`. A page
    shows the playground in an element
    ``<div class="sharnn-page" data-page="playground" data-title="..."></div>``.
    """
    app.add_config_value("sharnn_model", "wiki-small", "html", [str])
    app.add_js_file(f"sharnn/{SCRIPT}")
    app.connect("config-inited", _share_model)
    app.connect("build-finished", _write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _share_model(app: Any, config: Any) -> None:
    """Lets the notebooks that Sphinx runs show pages without weights of their own."""
    os.environ[SHARED_MODEL] = config.sharnn_model


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
    weights = shared_script(name)
    export_web(load(name), folder / weights)
    playground = json.dumps(Playground(name, weights=weights).page())
    write_atomically(
        folder / "playground.js", f"window.sharnnPages.playground = {playground};\n".encode()
    )
    write_atomically(folder / SCRIPT, asset(SCRIPT).encode())
