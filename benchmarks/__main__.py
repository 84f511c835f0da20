"""Measures, writes a JSON file and prints a table: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.curves import curves
from benchmarks.hardware import hardware
from benchmarks.machine import machine
from benchmarks.quality import CLOCKS, CONTENDERS, PRESETS, compete
from benchmarks.report import lines
from benchmarks.results import DEFAULT, add_part, check, read_results
from benchmarks.speed import speed
from sharnn.cli.parsers import Parser, positive
from sharnn.data import parse_split

PARTS = ("hardware", "speed", "curves", "quality")


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = Parser(prog="python -m benchmarks", description=__doc__)
    add = options.add_argument
    add("--quick", action="store_true", help="everything small, to test the harness")
    add(
        "--only",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        metavar="NAME",
        help=f"parts to measure: {', '.join(PARTS)}; the file keeps the others; default: all",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="results; default: benchmarks/results.json, or none with --quick",
    )
    add("--threads", type=positive, metavar="N", help="threads; default: what torch takes")
    add("--data", default="sample", metavar="FILE", help="text to learn from; default: sample")
    add("--split", type=parse_split, metavar="A,B,C", help="as in sharnn train")
    add("--minutes", type=float, default=10.0, metavar="M", help="of each training; default: 10")
    add("--seed", type=int, default=0, metavar="N", help="of each training; default: 0")
    add(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="of training; cpu counts the processor's time on one thread, where other work runs "
        "beside; default: wall",
    )
    add("--preset", nargs="+", choices=PRESETS, default=PRESETS, help="models to train")
    add(
        "--contender",
        nargs="+",
        choices=CONTENDERS,
        default=CONTENDERS,
        help="who trains; runs are merged into the file, so each can be run alone",
    )
    return options


def measure(arguments: argparse.Namespace, out: Path) -> None:
    """Measures what was asked for.

    Args:
        arguments: what `parser` parsed.
        out: the results file.

    Raises:
        sharnn.InputError: an option is out of range, or the data are missing or too short.
    """
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    threads = torch.get_num_threads()
    if arguments.clock == "cpu" and threads != 1:
        raise sharnn.InputError("--clock cpu adds up the time of all threads: give --threads 1")
    if not 0 < arguments.minutes < math.inf:
        raise sharnn.InputError(f"--minutes must be more than 0, got {arguments.minutes}")
    if not 0 <= arguments.seed < 2**63:
        raise sharnn.InputError(f"--seed must be at least 0 and below 2**63, got {arguments.seed}")
    check(out, arguments.quick)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "hardware": lambda: hardware(arguments.quick),
        "speed": lambda: speed(threads, arguments.quick),
        "curves": lambda: curves(threads, arguments.quick),
    }
    for name in arguments.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        if name == "quality":
            qualities(arguments, out)
            continue
        facts = machine()
        add_part(out, name, {"quick": arguments.quick, "machine": facts, **parts[name]()})


def qualities(arguments: argparse.Namespace, out: Path) -> None:
    """Trains the contenders that were asked for, one after another.

    Args:
        arguments: what `parser` parsed.
        out: the results file; a run is in it as soon as it is done.
    """
    quick = arguments.quick
    size = 60_000 if quick else 4_000_000
    corpus = sharnn.load_corpus(arguments.data, arguments.split, sample_size=size)
    contenders = list(arguments.contender)
    if quick and find_spec("x_transformers") is None:
        contenders = [name for name in contenders if not name.startswith("transformer")]
    for preset in ("tiny",) if quick else arguments.preset:
        for contender in contenders:
            run = compete(
                contender,
                preset,
                corpus,
                minutes=0.02 if quick else arguments.minutes,
                seed=arguments.seed,
                judged=1000 if quick else None,
                clock=arguments.clock,
            )
            add_part(out, "quality", {"quick": quick, "runs": [run]})


def main(given: Sequence[str] | None = None) -> int:
    """Runs what the options say.

    Args:
        given: the options; None takes the command line's.

    Returns:
        The exit code: 0, or 2 after bad input.
    """
    try:
        arguments = parser().parse_args(given)
        with tempfile.TemporaryDirectory() as folder:
            # A test of the harness leaves nothing behind unless it is told where.
            nowhere = Path(folder) / "results.json"
            out = arguments.out or (nowhere if arguments.quick else DEFAULT)
            measure(arguments, out)
            for line in lines(read_results(out)):
                print(line)
    except sharnn.InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped; parts that were done are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
