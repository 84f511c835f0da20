"""The command ``sharnn playground``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sharnn.checkpoint import find_model, load
from sharnn.cli.input import read_input
from sharnn.cli.parsers import Commands, model_argument
from sharnn.errors import InputError
from sharnn.run_folder import require_output
from sharnn.web.model_page import EXAMPLE, MAX_TEXT
from sharnn.web.playground import Playground


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn playground``."""
    parser = commands.add(
        "playground",
        run_playground,
        "Write a web page that runs the model: it reads what is typed, and continues it.",
        model_argument(),
    )
    parser.add_argument("--out", required=True, metavar="PAGE.html", help="the page to write")
    parser.add_argument(
        "--text",
        metavar="FILE",
        help=f"text in UTF-8 that the page shows first, at most {MAX_TEXT:,} bytes; - for standard "
        "input (default: a short invented article)",
    )


def run_playground(options: argparse.Namespace) -> int:
    """Executes ``sharnn playground``."""
    files = [] if options.text in (None, "-") else [options.text]
    path = require_output(options.out, [find_model(options.model), *files])
    text = EXAMPLE
    if options.text is not None:
        try:
            text = read_input(options.text, MAX_TEXT).decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{options.text} is not text in UTF-8") from error
    model = load(options.model)
    Playground(model, Path(options.model).stem, text).save(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser, no network is needed")
    return 0
