"""One run of the race, or one measurement of a step, in a process of its own.

``python -m benchmarks.race_run`` reads a task as JSON from standard input, appends its line to the
results file and ends. It also ends, without a result, if the process that started it does.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.machine import machine, peak_bytes
from benchmarks.race_file import append_row, claim, read_rows
from benchmarks.race_models import Entry, prepare
from benchmarks.race_search import Run, run_of
from benchmarks.race_settings import Race, Setting, make_race
from benchmarks.race_timing import budget, measure_reference, measure_timing, step_seconds
from benchmarks.transformer import parameter_count
from sharnn.device import keep_freed_memory
from sharnn.trainer import NonFiniteError

TAKEN = 3  # exit code: another process works on this, or it is done
ORPHANED = "benchmarks: the process that started this run has ended"
POINTS = 20  # of the curve of the training loss
VALIDATIONS = 10  # of a final run, on the first bytes of the validation part
VALIDATION_BYTES = 50_000
Row = dict[str, Any]


def finite(value: float) -> float | None:
    """Returns a number rounded for the results file, or None if it is infinite or NaN."""
    return round(value, 5) if math.isfinite(value) else None


def bits(entry: Entry, data: Any) -> float | None:
    """Returns the bits per byte of data, or None if the model has diverged."""
    try:
        return finite(entry.score(data))
    except sharnn.InputError:
        return None  # `sharnn.bits_per_byte` found NaN or Inf in the weights


def train(
    race: Race,
    run: Run,
    corpus: sharnn.Corpus,
    seconds: float,
    parent: int | None = None,
    device: str = "cpu",
) -> Row:
    """Trains one run and scores it on validation data, and a final run on test data too.

    Args:
        race: the race.
        run: the run.
        corpus: the data.
        seconds: duration of a step on one thread of a quiet machine.
        parent: id of the process that started this one, which ends if that one does; None if this
            process continues.
        device: ``"cpu"``, or ``"cuda"``, which takes the same steps in less time.

    Returns:
        The line for the results file.

    Raises:
        sharnn.InputError: see `prepare`.
        SystemExit: the parent has ended.
    """
    steps = budget(race.seconds(run.stage), seconds)
    contender = race.contender(run.contender)
    entry = prepare(race, contender, run.setting, corpus, run.seed, steps, device=device)
    trainer, is_final = entry.trainer, run.stage == "final"
    begin, cpu, score_cpu, read = time.perf_counter(), 0.0, 0.0, 0
    losses: list[float] = []
    curve: list[list[float | None]] = []  # steps, bytes, CPU seconds, bits per byte of training
    valid_curve: list[list[float | None]] = []  # steps, bits per byte
    diverged = False
    while trainer.progress < 1 and not diverged:
        start = time.process_time()
        try:
            result = trainer.step()
        except NonFiniteError:
            diverged = True
            break
        cpu += time.process_time() - start
        if parent is not None and os.getppid() != parent:
            sys.exit(ORPHANED)
        read += result.size
        if math.isfinite(result.loss):
            losses.append(result.loss / math.log(2))
        if trainer.progress >= (len(curve) + 1) / POINTS:
            mean = finite(sum(losses) / len(losses)) if losses else None
            curve.append([trainer.step_count, read, round(cpu, 1), mean])
            losses = []
        if is_final and trainer.progress >= (len(valid_curve) + 1) / VALIDATIONS:
            start = time.process_time()
            point = bits(entry, corpus.valid[:VALIDATION_BYTES])
            score_cpu += time.process_time() - start
            valid_curve.append([trainer.step_count, point])
    peak, start = peak_bytes(), time.process_time()
    valid = None if diverged else bits(entry, corpus.valid[:])
    scores = {"valid": valid}
    if is_final:
        scores["test"] = None if valid is None else bits(entry, corpus.test[:])
    score_cpu += time.process_time() - start
    return {
        "kind": "run",
        "name": run.name,
        "stage": run.stage,
        "contender": run.contender,
        "seed": run.seed,
        "setting": {**dataclasses.asdict(run.setting), "batch_size": run.setting.batch_size},
        "changes": {**contender.model, **contender.recipe},
        "details": entry.settings,
        "parameters": parameter_count(trainer.model),
        "steps": steps,
        "step_seconds": round(seconds, 6),
        "steps_done": trainer.step_count,
        "skipped": trainer.skipped,
        "bytes_read": read,
        "cpu_seconds": round(cpu, 1),
        "score_cpu_seconds": round(score_cpu, 1),
        "peak_bytes": peak if device == "cpu" else None,  # on a GPU it says nothing of the CPU's
        **scores,
        "curve": curve,
        **({"valid_curve": valid_curve} if is_final else {}),
        "wall_seconds": round(time.perf_counter() - begin),
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "machine": machine(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def perform(task: dict[str, Any]) -> int:
    """Performs a task and appends its line to the results file.

    Args:
        task: ``"kind"`` (``"reference"``, ``"timing"`` or ``"run"``), ``"name"``, the results file
            ``"out"``, the ``"data"``, the race's ``"quick"``, ``"seconds"`` and ``"rounds"``, the
            ``"command"``, by kind ``"busy"``, or the run's ``"contender"``, ``"setting"``,
            ``"stage"``, ``"seed"`` and ``"device"``, and optionally ``"parent"``; see `train`.

    Returns:
        The exit code: 0, or `TAKEN`.

    Raises:
        sharnn.InputError: bad input.
    """
    race = make_race(task["quick"], task["seconds"], task["rounds"])
    out = Path(task["out"])
    corpus = open_data(race, task["data"])
    with claim(out, task["name"]) as free:
        rows = read_rows(out)
        if not free:
            return TAKEN
        if task["kind"] == "reference":
            if any(row["kind"] == "reference" for row in rows):
                return TAKEN
            row = measure_reference(race, corpus, task["busy"])
        elif task["kind"] == "timing":
            setting = Setting(**task["setting"])
            if step_seconds(race, rows, task["contender"], setting) is not None:
                return TAKEN
            row = measure_timing(race, race.contender(task["contender"]), setting, corpus)
        else:
            run = Run(task["stage"], task["contender"], Setting(**task["setting"]), task["seed"])
            if run in [run_of(row) for row in rows if row["kind"] == "run"]:
                return TAKEN
            seconds = step_seconds(race, rows, run.contender, run.setting)
            assert seconds is not None
            row = train(race, run, corpus, seconds, task.get("parent"), task["device"])
        append_row(out, {**row, "command": task["command"]})
    return 0


def open_data(race: Race, data: str) -> sharnn.Corpus:
    """Opens the data of the race, with the track's split.

    Raises:
        sharnn.InputError: the data are missing or too short.
    """
    size = sum(race.track.split)
    return sharnn.load_corpus(data, race.track.split, stand_in=False, sample_size=size)


def main() -> int:
    """Reads a task from standard input and performs it.

    Returns:
        The exit code: 0, 2 after bad input, or `TAKEN`.
    """
    torch.set_num_threads(1)
    keep_freed_memory()  # as `sharnn train` does
    given = sys.stdin.read()
    if not given:
        sys.exit(ORPHANED)
    try:
        return perform(json.loads(given))
    except sharnn.InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
