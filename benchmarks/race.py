"""The race: every contender at its own best setting, in equal time, with several seeds.

``python -m benchmarks race --data FILE`` runs what is missing and can be stopped at any time. Every
run is a process of its own on one thread, and adds one line to the results file when it ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sharnn
from benchmarks.race_file import DEFAULT, claim, read_rows, start_file
from benchmarks.race_models import missing_options
from benchmarks.race_pages import write_pages
from benchmarks.race_run import TAKEN, open_data
from benchmarks.race_search import Run, next_runs
from benchmarks.race_settings import Contender, Race, make_race
from benchmarks.race_status import status_lines
from benchmarks.race_timing import step_seconds, timings_of
from benchmarks.worker import environment
from sharnn.cli.parsers import Parser, positive

POLL = 0.1  # seconds between two looks at the running processes
Task = dict[str, Any]


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    options = Parser(prog="python -m benchmarks race", description=__doc__)
    add = options.add_argument
    add("--data", metavar="FILE", help="text: its first 3.6 MB are used")
    add("--out", type=Path, default=DEFAULT, metavar="FILE", help="results; default: race.jsonl")
    add("--next", type=positive, metavar="N", help="end after starting N runs; default: all")
    add("--jobs", type=positive, default=1, metavar="N", help="runs side by side; default: 1")
    add("--contender", nargs="+", metavar="NAME", help="only these contenders; default: all")
    add("--trial", nargs="+", metavar="NAME", help="these trials instead; see race_settings.py")
    add(
        "--calibrate",
        action="store_true",
        help="only time steps; best on a quiet machine",
    )
    add("--busy", action="store_true", help="time the reference even if the machine has other work")
    add("--status", action="store_true", help="list what is done and what is missing; run nothing")
    add("--write", action="store_true", help="update the pages from the results; run nothing")
    add("--seconds", type=float, metavar="S", help="training time of a run; default: 600")
    add("--rounds", type=positive, metavar="N", help="timings of each step; default: 3")
    add("--quick", action="store_true", help="tiny models, to test the harness; needs --out")
    return options


@dataclass
class Session:
    """The runs that one call of the command starts, and those in progress.

    Args:
        race: the race.
        out: the results file.
        common: fields of every task.
        contenders: contenders or trials to run.
        calibrate: only time the steps that the searches open with.

    Attributes:
        active: the processes in progress with their tasks.
        skipped: names of tasks that this call does not start again: another process works on them,
            or they failed.
        failed: a task failed.
        started: number of runs started.
    """

    race: Race
    out: Path
    common: Task
    contenders: list[Contender]
    calibrate: bool = False
    active: list[tuple[subprocess.Popen[str], Task]] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    failed: bool = False
    started: int = 0

    def tasks(self) -> Iterator[Task]:
        """Yields the tasks that could start now, the most urgent first."""
        rows = read_rows(self.out)
        if not any(row["kind"] == "reference" for row in rows):
            yield {"kind": "reference", "name": "reference"}
            return
        done = [row for row in rows if row["kind"] == "run"]
        runs = [run for one in self.contenders for run in self._wanted(one, done)]
        count = {one.name: 0 for one in self.contenders}
        for row in done:
            count[row["contender"]] = count.get(row["contender"], 0) + 1
        # The contenders advance together, and so do the rounds of timings.
        runs.sort(key=lambda run: count[run.contender])
        timings = []
        for run in runs:
            values = {"contender": run.contender, "setting": dataclasses.asdict(run.setting)}
            if step_seconds(self.race, rows, run.contender, run.setting) is not None:
                if not self.calibrate:
                    fields = {"kind": "run", "stage": run.stage, "seed": run.seed}
                    yield {**fields, **values, "name": run.name}
                continue
            rounds = len(timings_of(rows, run.contender, run.setting))
            shape = f"{run.setting.step_bytes} bytes of {run.setting.length}"
            name = f"timing: {run.contender}, {shape}"
            timings.append((rounds, {"kind": "timing", **values, "name": name}))
        for _, task in sorted(timings, key=lambda timing: timing[0]):
            yield task

    def _wanted(self, contender: Contender, done: list[Any]) -> Iterator[Run]:
        if self.calibrate:
            for length in (contender.start.length, *self.race.opening):
                setting = dataclasses.replace(contender.start, length=length)
                yield Run("search", contender.name, setting, self.race.seeds[0])
            return
        yield from next_runs(self.race, contender, done)

    def start_next(self, limit: float) -> bool:
        """Starts a task that no process works on; returns False if there is none.

        Args:
            limit: maximum number of runs that this call starts.
        """
        names = self.skipped | {task["name"] for _, task in self.active}
        for task in self.tasks():
            if task["name"] in names:
                continue
            if self.started >= limit and not self.calibrate:
                return False
            with claim(self.out, task["name"]) as free:
                if not free:
                    self._skip(task, "another process works on it")
                    names.add(task["name"])
                    continue
            self.started += task["kind"] == "run"
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.race_run"],
                stdin=subprocess.PIPE,
                text=True,
                env=environment(1),
                start_new_session=True,  # Ctrl-C stops this process, which then ends the others
            )
            self.active.append((process, task))
            assert process.stdin is not None
            process.stdin.write(json.dumps({**self.common, **task}))
            process.stdin.close()
            _report(f"{task['name']} ...")
            return True
        return False

    def wait_for_one(self) -> None:
        """Waits until one of the processes in progress ends, and reports it."""
        while True:
            for process, task in self.active:
                if process.poll() is not None:
                    self.active.remove((process, task))
                    self._finish(task, process.returncode)
                    return
            time.sleep(POLL)

    def _finish(self, task: Task, code: int) -> None:
        if code == TAKEN:
            self._skip(task, "done by another process, or in progress there")
        elif code != 0:
            self.failed = True
            self._skip(task, f"failed with exit code {code}")
        elif task["kind"] == "run":
            rows = [row for row in read_rows(self.out, "run") if row["name"] == task["name"]]
            bits = rows[-1]["valid"]
            shown = "diverged" if bits is None else f"{bits:.4f} bits per byte on validation"
            _report(f"{task['name']}: {shown}, {rows[-1]['cpu_seconds']:.0f} s of training")

    def _skip(self, task: Task, reason: str) -> None:
        self.skipped.add(task["name"])
        _report(f"{task['name']}: {reason}")

    def end(self) -> None:
        """Ends the processes in progress; their results are lost."""
        for process, _ in self.active:
            process.terminate()
        for process, _ in self.active:
            process.wait()


def run_missing(session: Session, jobs: int, limit: float) -> bool:
    """Runs what is missing, until it is complete or a task fails.

    Args:
        session: see `Session`.
        jobs: number of processes at a time.
        limit: maximum number of runs to start.

    Returns:
        True if no task failed.
    """
    try:
        while True:
            may_start = not session.failed and len(session.active) < jobs
            if may_start and session.start_next(limit):
                continue
            if not session.active:
                return not session.failed
            session.wait_for_one()
    finally:
        session.end()


def choose(race: Race, arguments: argparse.Namespace) -> list[Contender]:
    """Returns the contenders or trials that the command line names, if this version has them.

    Raises:
        sharnn.InputError: there is no such contender, or it needs an option that is missing.
    """
    pool = race.trials if arguments.trial else race.contenders
    names = arguments.trial or arguments.contender or [one.name for one in pool]
    for name in names:
        if name not in [one.name for one in pool]:
            known = "; ".join(one.name for one in pool)
            raise sharnn.InputError(f"there is no contender {name!r}: choose from {known}")
    chosen = [one for one in pool if one.name in names]
    usable = [one for one in chosen if not missing_options(one)]
    for one in chosen:
        if one not in usable:
            _report(f"{one.name}: left out, sharnn has no option {missing_options(one)[0]}")
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
    start_file(out, race, open_data(race, arguments.data))
    words = [word for word in ("--quick",) if arguments.quick]
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
            # On Windows the parent may be a launcher in between.
            "parent": None if os.name == "nt" else os.getpid(),
            "command": " ".join(["python -m benchmarks race --data FILE", *words]),
        },
        contenders,
        arguments.calibrate,
    )
    limit = math.inf if arguments.next is None else arguments.next
    return 0 if run_missing(session, arguments.jobs, limit) else 1


def _report(line: str) -> None:
    print(time.strftime("%H:%M"), line, file=sys.stderr, flush=True)
