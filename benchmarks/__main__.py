"""Benchmarks sharnn on this machine, writes the results as JSON and prints them as a table."""

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
from benchmarks.entry import exit_code
from benchmarks.gpu.runner import run as run_gpu
from benchmarks.hardware import hardware
from benchmarks.machine import machine
from benchmarks.quality import CLOCKS, CONTENDERS, PRESETS, compete
from benchmarks.race import run as run_race
from benchmarks.report import lines
from benchmarks.results import DEFAULT, add_part, read_results, require_same_kind
from benchmarks.speed import speed
from sharnn.cli.parsers import Parser, positive
from sharnn.data import parse_split
from sharnn.device import keep_freed_memory

PARTS = ("hardware", "speed", "curves", "quality")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    options = Parser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="python -m benchmarks race --help describes the race, which takes many hours, and "
        "python -m benchmarks gpu --help what to do with a first GPU.",
    )
    add = options.add_argument
    add("--quick", action="store_true", help="small models and few repeats, to test the harness")
    add(
        "--only",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        metavar="NAME",
        help=f"parts to measure: {', '.join(PARTS)}; the file keeps its other parts; default: all",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="results file; default: benchmarks/results.json, or none with --quick",
    )
    add("--threads", type=positive, metavar="N", help="number of threads; default: torch's")
    add("--data", default="sample", metavar="FILE", help="training text; default: sample")
    add("--split", type=parse_split, metavar="A,B,C", help="as in sharnn train")
    add(
        "--minutes",
        type=float,
        default=10.0,
        metavar="M",
        help="training time of each model; default: 10",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="random seed of each training run; default: 0",
    )
    add(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="clock that limits training: wall, or cpu for the CPU time of one thread, if other "
        "programs run on this machine; default: wall",
    )
    add(
        "--preset",
        nargs="+",
        choices=PRESETS,
        default=PRESETS,
        help="model sizes to train; default: all",
    )
    add(
        "--contender",
        nargs="+",
        choices=CONTENDERS,
        default=CONTENDERS,
        help="contenders to train; each can be run alone: the file keeps other runs; default: all",
    )
    return options


def measure(arguments: argparse.Namespace, out: Path) -> None:
    """Measures the requested parts.

    Args:
        arguments: the parsed command line.
        out: the results file.

    Raises:
        sharnn.InputError: an option is out of range, or the data are missing or too short.
    """
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    threads = torch.get_num_threads()
    if arguments.clock == "cpu" and threads != 1:
        raise sharnn.InputError("--clock cpu adds up the time of all threads: use --threads 1")
    if not 0 < arguments.minutes < math.inf:
        raise sharnn.InputError(f"--minutes must be more than 0, got {arguments.minutes}")
    if not 0 <= arguments.seed < 2**63:
        raise sharnn.InputError(f"--seed must be at least 0 and below 2**63, got {arguments.seed}")
    require_same_kind(out, arguments.quick)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "hardware": lambda: hardware(arguments.quick),
        "speed": lambda: speed(threads, arguments.quick),
        "curves": lambda: curves(threads, arguments.quick),
    }
    for name in arguments.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        if name == "quality":
            train_contenders(arguments, out)
            continue
        part = {"quick": arguments.quick, "machine": machine(), **parts[name]()}
        add_part(out, name, part)


def train_contenders(arguments: argparse.Namespace, out: Path) -> None:
    """Trains the requested contenders, one after another.

    Args:
        arguments: the parsed command line.
        out: the results file; each run is added as soon as it ends.
    """
    keep_freed_memory()  # as `sharnn train` does
    quick = arguments.quick
    size = 60_000 if quick else 4_000_000
    corpus = sharnn.load_corpus(arguments.data, arguments.split, stand_in=False, sample_size=size)
    contenders = list(arguments.contender)
    if quick and find_spec("x_transformers") is None:
        contenders = [name for name in contenders if not name.startswith("transformer")]
    for preset in ("tiny",) if quick else arguments.preset:
        for contender in contenders:
            run = compete(
                contender,
                preset,
                corpus,
                minutes=0.005 if quick else arguments.minutes,
                seed=arguments.seed,
                test_size=1000 if quick else None,
                clock=arguments.clock,
            )
            add_part(out, "quality", {"quick": quick, "runs": [run]})


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmarks.

    Args:
        given: the options; None for those of the command line.

    Returns:
        The exit code: 0, 1 if a run failed or nobody reads the output, 2 after bad input, or 130
        after Ctrl-C.
    """
    return exit_code("benchmarks", _run, given, "stopped; finished parts are kept")


def _run(words: list[str]) -> int:
    if words[:1] == ["race"]:
        return run_race(words[1:])
    if words[:1] == ["gpu"]:
        return run_gpu(words[1:])
    arguments = make_parser().parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        # A test of the harness keeps its results only if --out is given.
        temporary = Path(folder) / "results.json"
        out = arguments.out or (temporary if arguments.quick else DEFAULT)
        measure(arguments, out)
        for line in lines(read_results(out)):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
