"""Trains, watches and scores the matched pair: `python -m benchmarks.pair COMMAND --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.entry import exit_code
from benchmarks.page_blocks import write_block
from benchmarks.pair import baselines, page, records, report, runs, scores, shipping
from benchmarks.pair.texts import SPLIT, pair_texts
from sharnn import ModelConfig, Recipe
from sharnn.checkpoint import SHIPPED
from sharnn.cli.exit import FAILED, INTERRUPTED
from sharnn.cli.parsers import (
    Commands,
    HelpFormatter,
    Parser,
    add_fields,
    given_fields,
    positive,
    quiet_option,
)
from sharnn.config import PRESETS
from sharnn.data import parse_split
from sharnn.device import keep_freed_memory
from sharnn.plots import check_figure_name, save_figure
from sharnn.run import Result


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog="python -m benchmarks.pair", description=__doc__, formatter_class=HelpFormatter
    )
    commands = Commands(parser)
    _add_train(commands)
    _add_finish(commands)
    _add_curves(commands)
    _add_score(commands)
    _add_baselines(commands)
    _add_ship(commands)
    _add_report(commands)
    return parser


def _texts_options() -> Parser:
    """Returns a parent parser with the options of the texts."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--data", required=True, type=Path, metavar="FILE", help="a file with the start of enwik8"
    )
    parent.add_argument(
        "--split",
        type=parse_split,
        default=SPLIT,
        metavar="TRAIN,VALID,TEST",
        help="bytes of its three parts (default: 3350000,50000,200000)",
    )
    return parent


def _add_train(commands: Commands) -> None:
    config, recipe = runs.base_settings()
    parser = commands.add(
        "train",
        run_train,
        "Start the trunk of a contender, or continue the one in the folder.",
        _texts_options(),
        quiet_option(),
    )
    parser.add_argument("--contender", required=True, choices=runs.CONTENDERS, help="the model")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--preset", choices=PRESETS, default=runs.PRESET, help="model and recipe")
    add_fields(parser, "model with a head (defaults in parentheses)", config)
    title = "recipe (defaults in parentheses; a given limit of steps, epochs or minutes replaces "
    add_fields(parser, title + "the default)", recipe)


def _add_finish(commands: Commands) -> None:
    parser = commands.add(
        "finish",
        run_finish,
        "Train a copy of a trunk to its end, while the learning rate falls to 0.",
        _texts_options(),
        quiet_option(),
    )
    parser.add_argument("trunk", type=Path, metavar="TRUNK", help="the run folder of the trunk")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run folder")
    parser.add_argument(
        "--share",
        type=float,
        default=runs.DECAY_SHARE,
        help="fraction of all steps over which the rate falls",
    )


def _add_curves(commands: Commands) -> None:
    parser = commands.add(
        "curves", run_curves, "Compare the curves of two runs, which may be in training."
    )
    _add_runs(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="results file to which the curves are added"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="picture to draw")


def _add_score(commands: Commands) -> None:
    parser = commands.add(
        "score", run_score, "Score two runs on the test texts, and add them.", _texts_options()
    )
    _add_runs(parser)
    parser.add_argument("--bytes", type=positive, help="bytes of each text (default: all)")
    parser.add_argument(
        "--learn",
        action="store_true",
        help="also score models that keep training, as compress does",
    )
    _add_results(parser)


def _add_baselines(commands: Commands) -> None:
    parser = commands.add(
        "baselines",
        run_baselines,
        "Measure classical compressors on the same texts, and add their results.",
        _texts_options(),
    )
    _add_results(parser)


def _add_ship(commands: Commands) -> None:
    parser = commands.add(
        "ship", run_ship, "Write the models of two runs as the package's pretrained models."
    )
    _add_runs(parser)
    parser.add_argument(
        "--folder", type=Path, default=SHIPPED, help="folder of the files (default: the package's)"
    )


def _add_report(commands: Commands) -> None:
    parser = commands.add(
        "report", run_report, "Write the results on README.md and the other pages with a block."
    )
    _add_results(parser)


def _add_results(parser: Parser) -> None:
    parser.add_argument(
        "--out", type=Path, default=records.DEFAULT, metavar="FILE", help="results file"
    )


def _add_runs(parser: Parser) -> None:
    parser.add_argument(
        "--runs", nargs=2, required=True, type=Path, metavar="RUN", help="a run of each contender"
    )


def run_train(options: argparse.Namespace) -> int:
    """Executes the command ``train``."""
    config, recipe = runs.base_settings(options.preset)
    config = dataclasses.replace(config, **given_fields(options, ModelConfig))
    recipe = dataclasses.replace(recipe, **_recipe_changes(options))
    result = runs.train_trunk(
        options.contender,
        options.out,
        pair_texts(options.data, options.split),
        config,
        recipe,
        options.words,
        progress_bar=not options.quiet,
    )
    return _report(result, options.out)


def _recipe_changes(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the recipe's fields given as options; given limits replace all of the default's."""
    changes = given_fields(options, Recipe)
    limits = set(runs.LIMITS)
    return changes if not limits & changes.keys() else {**dict.fromkeys(limits), **changes}


def run_finish(options: argparse.Namespace) -> int:
    """Executes the command ``finish``."""
    result = runs.finish(
        options.trunk,
        options.out,
        pair_texts(options.data, options.split),
        options.share,
        options.words,
        progress_bar=not options.quiet,
    )
    return _report(result, options.out)


def _report(result: Result, folder: Path) -> int:
    """Prints how a session ended, and returns the exit code."""
    if result.reason == "done":
        print(f"{result.message}; saved in {folder}")
        return 0
    print(f"pair: {result.message}; the same command continues {folder}", file=sys.stderr)
    return INTERRUPTED if result.reason == "interrupted" else FAILED


def run_curves(options: argparse.Namespace) -> int:
    """Executes the command ``curves``."""
    if options.figure is not None:
        check_figure_name(options.figure)
    pair = records.find_pair(options.runs)
    for contender, folder in pair.items():
        curve = records.read_curve(folder)
        if not curve["step"]:
            raise sharnn.InputError(f"{folder} has not been validated yet")
        last = {name: values[-1] for name, values in curve.items()}
        print(
            f"{contender}: step {last['step']}, {last['bytes_read'] / 1e6:.1f} MB, "
            f"{last['cpu_seconds'] / 60:.1f} minutes of processor time, "
            f"{last['seconds'] / 60:.1f} by the wall clock; "
            f"{last['enwik8']:.4f} on enwik8, {last['enwiki2016']:.4f} on enwiki2016"
        )
    results = records.with_curves(options.out, pair)
    for sentence in page.curve_sentences(results):
        print(sentence)
    if options.figure is not None:
        figure = page.pair_figure(results)[0].figure
        save_figure(figure, options.figure)  # type: ignore[arg-type]
    return 0


def run_score(options: argparse.Namespace) -> int:
    """Executes the command ``score``."""
    pair = records.find_pair(options.runs)
    score = scores.score_pair(
        pair,
        pair_texts(options.data, options.split),
        size=options.bytes,
        learn=options.learn,
        command=options.words,
    )
    records.with_curves(options.out, pair)
    records.add_score(options.out, score)
    for text, result in score["texts"].items():
        for name, bits in result["bits_per_byte"].items():
            print(f"{text}, test, {name}: {bits:.4f} bits per byte")
    for sentence in page.score_sentences(score):
        print(sentence)
    return 0


def run_baselines(options: argparse.Namespace) -> int:
    """Executes the command ``baselines``."""
    measured = baselines.measure_baselines(pair_texts(options.data, options.split))
    records.add_baselines(options.out, measured)
    for name, texts in measured.items():
        for text, costs in texts.items():
            for way, bits in costs.items():
                print(f"{text}, test, {name}, {way}: {bits:.4f} bits per byte")
    return 0


def run_ship(options: argparse.Namespace) -> int:
    """Executes the command ``ship``."""
    for path in shipping.ship(records.find_pair(options.runs), options.folder):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def run_report(options: argparse.Namespace) -> int:
    """Executes the command ``report``."""
    write_block(report.PAGES, report.BLOCK, report.block(records.read_results(options.out)))
    return 0


def main(given: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        given: the words after the program's name; None for those of the command line.

    Returns:
        The exit code: 0, 1 after a failed run, 2 after bad input, or 130 after an interruption.
    """
    return exit_code("pair", _run, given)


def _run(words: list[str]) -> int:
    torch.set_num_threads(1)
    keep_freed_memory()
    options = make_parser().parse_args(words)
    options.words = ["python", "-m", "benchmarks.pair", *words]
    return int(options.command(options))


if __name__ == "__main__":
    sys.exit(main())
