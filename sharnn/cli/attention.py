"""The command ``sharnn attention``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sharnn.analysis.explorer import MEGABYTES, explore
from sharnn.analysis.figures import statistics_figure
from sharnn.analysis.statistics import attention_statistics
from sharnn.checkpoint import find_model, load
from sharnn.cli.data import data_files, open_data
from sharnn.cli.parsers import (
    Commands,
    data_option,
    device_option,
    memory_option,
    model_argument,
    positive,
    threads_option,
)
from sharnn.device import pick_device
from sharnn.plots import check_figure_name, save_figure
from sharnn.run_folder import require_output


def add_commands(commands: Commands) -> None:
    """Adds ``sharnn attention``."""
    parser = commands.add(
        "attention",
        run_attention,
        "Write an interactive HTML page of the model's attention.",
        model_argument(),
        data_option("the text to read; of a named corpus, the test part", required=True),
        memory_option(),
        device_option(),
        threads_option(),
    )
    parser.add_argument("--out", required=True, metavar="PAGE.html", help="the page to write")
    parser.add_argument(
        "--watched",
        type=positive,
        default=1024,
        help="number of targets: bytes that can be selected on the page",
    )
    parser.add_argument(
        "--start",
        type=positive,
        help="offset of the first target (default: the first one with a full memory)",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=MEGABYTES,
        help="maximum size of the page; the first targets are dropped to stay within it",
    )
    parser.add_argument(
        "--survey",
        metavar="FIGURE.png",
        help="also plot attention statistics over all the data",
    )


def run_attention(options: argparse.Namespace) -> int:
    """Executes ``sharnn attention``."""
    # Outputs are checked first, because the statistics take time.
    inputs = [find_model(options.model), *data_files(options.data)]
    page = require_output(options.out, inputs)
    figure = None
    if options.survey is not None:
        figure = require_output(options.survey, [*inputs, page])
        check_figure_name(figure)
    model = load(options.model, pick_device(options.device))
    data = open_data(options.data)
    explorer = explore(
        model,
        data,
        targets=options.watched,
        start=options.start,
        memory_limit=options.memory,
        name=Path(options.model).stem,
        megabytes=options.megabytes,
    )
    if figure is not None:
        statistics = attention_statistics(model, data, memory_limit=options.memory)
        save_figure(statistics_figure(statistics), figure)
    explorer.save(page)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    for note in explorer.content["notes"]:
        print(note)
    if figure is not None:
        print(figure)
    return 0
