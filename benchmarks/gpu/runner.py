"""Runs the steps one after another, each in a process of its own, and keeps what they found.

Without a GPU every step runs with tiny models on the CPU: that shows that the steps work, and
nothing about speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.gpu.goal import goal_lines
from benchmarks.gpu.results import DEFAULT, TRIAL, add_step, read_results, start_file
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
    default = f"{DEFAULT.name}, and {TRIAL.name} in _build for a trial"
    add("--out", type=Path, metavar="FILE", help=f"results; default: {default}")
    return options


def run(given: Sequence[str]) -> int:
    """Runs the command.

    Args:
        given: the options.

    Returns:
        The exit code: 0, or 1 if a step failed.

    Raises:
        sharnn.InputError: bad input, or torch can't use the machine's GPU.
    """
    arguments = make_parser().parse_args(given)
    on_gpu = torch.cuda.is_available()
    tiny = arguments.tiny or not on_gpu
    if not on_gpu and not arguments.tiny and shutil.which("nvidia-smi"):
        raise sharnn.InputError(
            f"torch {torch.__version__} can't use the GPU of this machine: install a torch for "
            "CUDA that fits the driver (nvidia-smi shows it), or give --tiny for a trial on the CPU"
        )
    if not on_gpu:
        report("There is no GPU: tiny models on the CPU, which says nothing about speed.")
    elif tiny:
        report("Tiny models, which says nothing about speed.")
    facts = {**machine(), "device": device_name() if on_gpu else "CPU"}
    del facts["commit"]  # each step has its own
    out: Path = arguments.out or (TRIAL if tiny else DEFAULT)
    if out == TRIAL:
        out.parent.mkdir(exist_ok=True)
    start_file(out, tiny, facts)
    settings = {
        "device": "cuda" if on_gpu else "cpu",
        "tiny": tiny,
        "data": arguments.data or ("sample" if tiny else "enwik8"),
        "earlier": str(out.resolve()),
    }
    failed = []
    for name, step in STEPS.items():
        if arguments.only and name not in arguments.only:
            continue
        entry = entry_of(name, step, settings)
        add_step(out, name, entry)
        if entry["status"] != "done":
            failed.append(name)
        report(f"{name} ({entry['seconds']:.0f} s): {entry['line']}")
    if not tiny:
        for line in goal_lines(read_results(out)["steps"]):
            report(line)
    if failed:
        report(f"failed: {', '.join(failed)}")
    report(f"results: {out}")
    return 1 if failed else 0


def device_name() -> str:
    """Returns the GPU's name.

    Another process reads it: torch would keep some of the GPU's memory in this one, or the whole
    GPU if it is set to serve one process at a time.
    """
    code = "import torch; print(torch.cuda.get_device_name())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def entry_of(name: str, step: Step, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs one step in a process of its own and returns its entry for the results file.

    Returns:
        ``"status"``: ``"done"``, ``"wrong"`` if a check of the step did not pass, or ``"failed"``;
        ``"seconds"``; ``"commit"``; ``"line"``, a summary or the error; and ``"result"`` unless it
        failed.
    """
    start, commit = time.monotonic(), machine()["commit"]
    result, error = result_or_error(name, step, settings)
    seconds = round(time.monotonic() - start, 1)
    if result is None:
        return {"status": "failed", "seconds": seconds, "commit": commit, "line": error}
    status = "done" if result.get("passed", True) else "wrong"
    facts = {"status": status, "seconds": seconds, "commit": commit}
    return {**facts, "line": step.line(result), "result": result}


def result_or_error(
    name: str, step: Step, settings: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """Returns what a step found, or None and the last line of its error.

    The standard error stream shows the whole error.
    """
    code, output, errors = run_child({"step": name, **settings}, 60 * step.minutes)
    if code is None:
        error = f"not ended after {step.minutes:g} minutes"
    elif code != 0 or not output:
        error = (errors.strip().splitlines() or [f"exit code {code}"])[-1][:300]
    else:
        return json.loads(output.splitlines()[-1]), ""
    print(errors, file=sys.stderr, flush=True)
    return None, error


def run_child(settings: dict[str, Any], seconds: float) -> tuple[int | None, str, str]:
    """Runs a step in a process of its own, and ends whatever it has started.

    Returns:
        The exit code, None if it took too long; and what it wrote to its two outputs.
    """
    # Files, since a pipe stays open as long as any process that the child started.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.child"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            text=True,
            env=environment(torch.get_num_threads()) | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0"},
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(settings), timeout=seconds)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read()


def report(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)
