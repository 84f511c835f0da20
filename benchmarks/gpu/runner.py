"""Runs the steps one after another, each in a process of its own, and keeps what they found.

Without a GPU every step runs with tiny models on the CPU: that shows that the steps work, and
nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.results import DEFAULT, add_step, start_file
from benchmarks.gpu.steps import STEPS, Step
from benchmarks.machine import machine
from benchmarks.worker import environment
from sharnn.cli.parsers import Parser


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    options = Parser(prog="python -m benchmarks gpu", description=__doc__)
    add = options.add_argument
    add("--only", nargs="+", choices=list(STEPS), metavar="STEP", help=f"of {', '.join(STEPS)}")
    add("--tiny", action="store_true", help="tiny models, as without a GPU")
    add("--data", metavar="DATA", help="text of the paper's run; default: enwik8, or a stand-in")
    add("--out", type=Path, default=DEFAULT, metavar="FILE", help="results; default: gpu.json")
    return options


def run(given: Sequence[str]) -> int:
    """Runs the command.

    Args:
        given: the options.

    Returns:
        The exit code: 0, or 1 if a step failed.

    Raises:
        sharnn.InputError: bad input.
    """
    arguments = make_parser().parse_args(given)
    on_gpu = torch.cuda.is_available()
    tiny = arguments.tiny or not on_gpu
    if not on_gpu:
        report("There is no GPU: tiny models on the CPU, which says nothing about speed.")
    elif tiny:
        report("Tiny models, which says nothing about speed.")
    facts = {**machine(), "device": torch.cuda.get_device_name() if on_gpu else "CPU"}
    start_file(arguments.out, tiny, facts)
    settings = {
        "device": "cuda" if on_gpu else "cpu",
        "tiny": tiny,
        "data": arguments.data or ("sample" if tiny else "enwik8"),
        "earlier": str(arguments.out.resolve()),
    }
    failed = []
    for name, step in STEPS.items():
        if arguments.only and name not in arguments.only:
            continue
        entry = entry_of(name, step, settings)
        add_step(arguments.out, name, entry)
        if entry["status"] != "done":
            failed.append(name)
        report(f"{name} ({entry['seconds']:.0f} s): {entry['line']}")
    if failed:
        report(f"failed: {', '.join(failed)}")
    report(f"results: {arguments.out}")
    return 1 if failed else 0


def entry_of(name: str, step: Step, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs one step in a process of its own and returns its entry for the results file.

    Returns:
        ``"status"``: ``"done"``, ``"wrong"`` if a check of the step did not pass, or ``"failed"``;
        ``"seconds"``; ``"line"``, a summary or the error; and ``"result"`` unless it failed.
    """
    start = time.monotonic()
    result, error = result_or_error(name, step, settings)
    seconds = round(time.monotonic() - start, 1)
    if result is None:
        return {"status": "failed", "seconds": seconds, "line": error}
    status = "done" if result.get("passed", True) else "wrong"
    return {"status": status, "seconds": seconds, "line": step.line(result), "result": result}


def result_or_error(
    name: str, step: Step, settings: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """Returns what a step found, or None and the last line of its error."""
    command = [sys.executable, "-m", "benchmarks.gpu.child"]
    try:
        process = subprocess.run(
            command,
            input=json.dumps({"step": name, **settings}),
            capture_output=True,
            text=True,
            env=environment(torch.get_num_threads()),
            timeout=60 * step.minutes,
        )
    except subprocess.TimeoutExpired:
        return None, f"not ended after {step.minutes:g} minutes"
    lines = process.stdout.splitlines()
    if process.returncode != 0 or not lines:
        errors = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return None, errors[-1][:300]
    return json.loads(lines[-1]), ""


def report(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)
