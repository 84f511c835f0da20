"""The race: every contender at its own best setting, in equal time, with several seeds.

First come the searches, then the checks at full time, the final runs, and the trials; all of them
are listed in race_settings.py.

``python -m benchmarks race --data FILE`` runs what is missing and can be stopped at any time. Every
run is a process of its own on one thread, and adds one line to the results file when it ends. Its
length is the number of steps that one CPU thread takes in the track's time, so a GPU can do it too.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

import sharnn
from benchmarks.race_file import DEFAULT, read_rows, start_file
from benchmarks.race_models import missing_options
from benchmarks.race_pages import write_pages
from benchmarks.race_run import open_data
from benchmarks.race_session import Session, report, run_missing
from benchmarks.race_settings import Contender, Race, make_race
from benchmarks.race_status import status_lines
from sharnn.cli.parsers import Parser, positive
from sharnn.device import pick_device


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    options = Parser(prog="python -m benchmarks race", description=__doc__)
    add = options.add_argument
    add("--data", metavar="FILE", help="text: its first 3.6 MB are used")
    add("--out", type=Path, default=DEFAULT, metavar="FILE", help="results; default: race.jsonl")
    add("--next", type=positive, metavar="N", help="end after starting N runs; default: all")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="of the runs; default: cpu")
    add("--jobs", type=positive, default=1, metavar="N", help="runs side by side; default: 1")
    add("--contender", nargs="+", metavar="NAME", help="only these, and given trials")
    add("--trial", nargs="+", metavar="NAME", help="only these, and given contenders")
    add("--calibrate", action="store_true", help="only time steps; best on a quiet machine")
    add("--busy", action="store_true", help="time the reference even if the machine has other work")
    add("--status", action="store_true", help="list what is done and what is missing; run nothing")
    add("--write", action="store_true", help="update the pages from the results; run nothing")
    add("--seconds", type=float, metavar="S", help="time of a final run; default: 600")
    add("--rounds", type=positive, metavar="N", help="timings of each step; default: 3")
    add("--quick", action="store_true", help="tiny models, to test the harness; needs --out")
    return options


def choose(race: Race, arguments: argparse.Namespace) -> list[Contender]:
    """Returns the contenders and trials that the command line names, if this version has them.

    Raises:
        sharnn.InputError: there is no such contender, or it needs an option that is missing.
    """
    pool = {one.name: one for one in (*race.contenders, *race.trials)}
    names = [*(arguments.contender or ()), *(arguments.trial or ())]
    for kind, given, known in (
        ("contender", arguments.contender, race.contenders),
        ("trial", arguments.trial, race.trials),
    ):
        for name in given or ():
            if pool.get(name) not in known:
                choices = "; ".join(one.name for one in known)
                raise sharnn.InputError(f"there is no {kind} {name!r}: choose from {choices}")
    chosen = [one for one in pool.values() if one.name in names or not names]
    usable = [one for one in chosen if not missing_options(one)]
    for one in chosen:
        if one not in usable:
            report(f"{one.name}: left out, sharnn has no option {missing_options(one)[0]}")
    if not usable:
        raise sharnn.InputError("no contender is left to run")
    return usable


def run(given: Sequence[str]) -> int:
    """Runs the command.

    Args:
        given: the options.

    Returns:
        The exit code: 0, or 1 if a run failed.

    Raises:
        sharnn.InputError: bad input.
    """
    arguments = make_parser().parse_args(given)
    race = make_race(arguments.quick, arguments.seconds, arguments.rounds)
    out: Path = arguments.out
    if not 0 < race.track.seconds < math.inf:
        raise sharnn.InputError(f"--seconds must be more than 0, got {race.track.seconds}")
    if race != make_race(False) and out.resolve() == DEFAULT:
        raise sharnn.InputError("another track needs another results file: give one with --out")
    if arguments.write:
        write_pages(out)
        return 0
    if arguments.status:
        for line in status_lines(race, read_rows(out)):
            print(line)
        return 0
    if arguments.data is None:
        raise sharnn.InputError("--data FILE is needed: the race trains on real text")
    contenders = choose(race, arguments)
    pick_device(arguments.device)  # before a process starts
    start_file(out, race, open_data(race, arguments.data))
    words = [word for word in ("--quick",) if arguments.quick]
    words += [f"--device {arguments.device}"] if arguments.device != "cpu" else []
    words += [f"--seconds {race.track.seconds:g}"] if arguments.seconds else []
    session = Session(
        race,
        out,
        {
            "out": str(out.resolve()),
            "data": arguments.data,
            "quick": arguments.quick,
            "seconds": arguments.seconds,
            "rounds": arguments.rounds,
            "busy": arguments.busy,
            "device": arguments.device,
            # On Windows the parent may be a launcher in between.
            "parent": None if os.name == "nt" else os.getpid(),
            "command": " ".join(["python -m benchmarks race --data FILE", *words]),
        },
        contenders,
        arguments.calibrate,
    )
    limit = math.inf if arguments.next is None else arguments.next
    return 0 if run_missing(session, arguments.jobs, limit) else 1
