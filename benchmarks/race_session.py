"""One call of the race's command: starts processes for what is missing, and waits for them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.race_file import claim, read_rows
from benchmarks.race_run import TAKEN
from benchmarks.race_search import Run, device_of, in_order
from benchmarks.race_settings import Contender, Race
from benchmarks.race_timing import step_seconds, timings_of
from benchmarks.worker import environment

POLL = 0.1  # seconds between two looks at the running processes
Task = dict[str, Any]


@dataclass
class Session:
    """The runs that one call of the command starts, and those in progress.

    Args:
        race: the race.
        out: the results file.
        common: fields of every task.
        contenders: contenders and trials to run.
        calibrate: only time the steps that the searches open with, and those of trials.

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
        if self.calibrate:
            timings = [self._timing(rows, run) for run in self._openings()]
            for rounds, task in sorted(timings, key=lambda timing: timing[0]):
                if rounds < self.race.track.rounds:
                    yield task
            return
        done = [row for row in rows if row["kind"] == "run"]
        for run in in_order(self.race, self.contenders, done):
            if step_seconds(self.race, rows, run.contender, run.setting) is None:
                yield self._timing(rows, run)[1]
            else:
                yield {**_task(run, "run", run.name), "stage": run.stage, "seed": run.seed}

    def _openings(self) -> Iterator[Run]:
        """Yields runs that have the shapes which the searches open with, and those of trials."""
        for one in self.contenders:
            is_trial = one in self.race.trials
            for length in (one.start.length, *(() if is_trial else self.race.opening)):
                setting = dataclasses.replace(one.start, length=length)
                yield Run("search", one.name, setting, self.race.search_seed)

    def _timing(self, rows: list[Any], run: Run) -> tuple[int, Task]:
        """Returns the number of timings of a run's step so far, and the task of another one."""
        rounds = len(timings_of(rows, run.contender, run.setting))
        shape = f"{run.setting.step_bytes} bytes of {run.setting.length}"
        return rounds, _task(run, "timing", f"timing: {run.contender}, {shape}")

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
            report(f"{task['name']} ...")
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
            on_cpu = device_of(rows[-1]) == "cpu"
            spent = rows[-1]["cpu_seconds" if on_cpu else "wall_seconds"]
            report(f"{task['name']}: {shown}, {spent:.0f} s of training")

    def _skip(self, task: Task, reason: str) -> None:
        self.skipped.add(task["name"])
        report(f"{task['name']}: {reason}")

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


def report(line: str) -> None:
    """Prints a line to standard error, with the time of day."""
    print(time.strftime("%H:%M"), line, file=sys.stderr, flush=True)


def _task(run: Run, kind: str, name: str) -> Task:
    values = {"contender": run.contender, "setting": dataclasses.asdict(run.setting)}
    return {"kind": kind, **values, "name": name}
