"""Step "paper": some minutes of the paper's run, killed once and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sharnn
from benchmarks.gpu.plan import Plan
from benchmarks.worker import environment
from sharnn.checkpoint import LAST, read_header

MINUTES = 5.0
KILLED_AFTER = 0.4  # of those minutes
TRAINING_BYTES = 90_000_000  # of enwik8
EPOCHS = 25
TINY = ["--dim", "32", "--boom-dim", "128", "--layers", "2", "--attention-layers", "0"]
TINY += ["--memory", "96", "--batch-size", "4", "--segment-length", "32", "--eval-bytes", "2000"]
TINY_STEPS = 30  # of each session


def paper(plan: Plan) -> dict[str, Any]:
    """Trains with ``sharnn paper``, kills the process, resumes, and ends it with Ctrl-C.

    Returns:
        ``"sessions"``, the steps at which each began and ended; ``"lines"``, the metrics of the
        run; ``"rate"``, its median bytes a second with a full memory; ``"hours"``, the paper's 25
        epochs of enwik8 at that rate, validations not counted; ``"passed"``, True if the second
        session continued at the last checkpoint of the first.

    Raises:
        sharnn.InputError: a session failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "sharnn", "paper", "--out", str(run), "--quiet"]
        command += ["--data", plan.data, "--device", plan.device]
        command += ["--checkpoint-every", "10" if plan.tiny else "200"]
        command += TINY if plan.tiny else []
        killed_at = session(plan, command, run, KILLED_AFTER, signal.SIGKILL)
        resumed_from = step_of_checkpoint(run)
        session(plan, command, run, 1 - KILLED_AFTER, signal.SIGINT)
        lines = read_metrics(run)
    rate, losses = rate_and_losses(lines)
    steps = [line["step"] for line in lines if "lr" in line]
    continued = resumed_from > 0 and steps == sorted(set(steps)) and steps[-1] > killed_at
    return {
        "data": plan.data,
        "killed_at": killed_at,
        "resumed_from": resumed_from,
        "steps": steps[-1],
        "rate": rate,
        "hours": EPOCHS * TRAINING_BYTES / rate / 3600,
        "losses": losses,
        "passed": continued and losses[-1] < losses[0],
    }


def session(plan: Plan, command: list[str], run: Path, part: float, end: signal.Signals) -> int:
    """Trains for a part of the minutes, ends the process, and returns the step that it reached.

    The session gets more time if it has not yet trained some steps beyond a checkpoint.

    Raises:
        sharnn.InputError: the process ended by itself.
    """
    first, clock = step_of_metrics(run), time.monotonic()
    process = start(command)
    try:
        while process.poll() is None:
            step, saved = step_of_metrics(run), step_of_checkpoint(run)
            enough = step - first >= TINY_STEPS and step > saved > 0
            if enough and (plan.tiny or time.monotonic() - clock > 60 * MINUTES * part):
                process.send_signal(end)
                process.wait()
            time.sleep(0.05 if plan.tiny else 1.0)
    finally:
        process.kill()
        errors = process.communicate()[1]
    if process.returncode not in (-end, 128 + end):
        raise sharnn.InputError(f"sharnn paper ended with {process.returncode}: {errors.strip()}")
    return step_of_metrics(run)


def start(command: list[str]) -> subprocess.Popen[str]:
    """Starts a session."""
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(1),
        start_new_session=True,
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a run's metrics; none if there is no file yet."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def step_of_metrics(run: Path) -> int:
    """Returns the step of the last line of metrics; 0 without one."""
    return max((line["step"] for line in read_metrics(run)), default=0)


def step_of_checkpoint(run: Path) -> int:
    """Returns the step of a run's last checkpoint; 0 without one."""
    path = run / LAST
    return read_header(path)["training"]["step"] if path.exists() else 0


def rate_and_losses(lines: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Returns the median bytes a second once the memory is full, and the losses along the run."""
    trained = [line for line in lines if "bytes_per_second" in line]
    late = trained[len(trained) // 3 :]
    rates = sorted(line["bytes_per_second"] for line in late)
    stride = max(1, len(trained) // 20)
    losses = [line["train_bits_per_byte"] for line in trained[::stride]]
    return float(rates[len(rates) // 2]), losses
