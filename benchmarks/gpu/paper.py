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
from benchmarks.gpu.results import result_of
from benchmarks.gpu.validation import EPOCHS, TRAINING_BYTES
from benchmarks.worker import environment
from sharnn.checkpoint import LAST, read_header
from sharnn.corpora.corpus_files import DownloadError
from sharnn.data import CORPORA
from sharnn.run import METRICS

MINUTES = 3.0
LONGEST = 2.0  # times the minutes that a session should take
KILLED_AFTER = 0.4  # of those minutes
SAVED_AFTER = 30  # seconds between checkpoints, if the speed is known
SAVED_STEPS = 100  # otherwise
TINY = ["--dim", "32", "--boom-dim", "128", "--layers", "2", "--attention-layers", "0"]
TINY += ["--memory", "96", "--batch-size", "4", "--segment-length", "32", "--eval-bytes", "2000"]
TINY_STEPS = 30  # of each session


def paper(plan: Plan) -> dict[str, Any]:
    """Trains with ``sharnn paper``, kills the process, resumes, and ends it with Ctrl-C.

    Returns:
        ``"data"``, the text; the steps at which the run was killed and resumed and at which it
        ended; ``"rate"``, its median bytes a second with a full memory; ``"hours"``, the paper's 25
        epochs of enwik8 at that rate, without validations, None in a trial; ``"losses"``, along
        the run;
        ``"passed"``, True if the second session continued at the last checkpoint of the first.

    Raises:
        sharnn.InputError: a session failed.
    """
    data = corpus_at_hand(plan.data)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "sharnn", "paper", "--out", str(run), "--quiet"]
        command += ["--data", data, "--device", plan.device]
        # A small corpus must last for all the minutes.
        command += ["--epochs", "1000", "--checkpoint-every", str(checkpoint_steps(plan))]
        command += TINY if plan.tiny else []
        killed_at = session(plan, command, run, KILLED_AFTER, signal.SIGKILL)
        resumed_from = step_of_checkpoint(run)
        session(plan, command, run, 1 - KILLED_AFTER, signal.SIGINT)
        lines = read_metrics(run)
    rate, losses = rate_and_losses(lines)
    steps = [line["step"] for line in lines if "lr" in line]
    continued = resumed_from > 0 and steps == sorted(set(steps)) and steps[-1] > killed_at
    return {
        "data": data,
        "killed_at": killed_at,
        "resumed_from": resumed_from,
        "steps": steps[-1],
        "rate": rate,
        "hours": None if plan.tiny else EPOCHS * TRAINING_BYTES / rate / 3600,
        "losses": losses,
        "passed": continued and losses[-1] < losses[0],
    }


def corpus_at_hand(data: str) -> str:
    """Returns the name of a corpus, or of the one that replaces it if it can't be downloaded.

    ``sharnn paper`` itself never replaces a corpus.

    Raises:
        sharnn.InputError: there is no such file.
    """
    while True:
        try:
            sharnn.load_corpus(data, stand_in=False)
            return data
        except DownloadError:
            stand_in = CORPORA[data].stand_in
            if stand_in is None:
                raise
            data = stand_in


def checkpoint_steps(plan: Plan) -> int:
    """Returns the steps between checkpoints.

    A checkpoint of the paper's run has 0.8 GB, which a slow disk must not write all the time, and
    a slow GPU must have written one before the first session ends.
    """
    if plan.tiny:
        return 10
    training = result_of(plan.earlier, "training")
    if training is None or training["library"] not in (training["ways"] or {"cases": ()})["cases"]:
        return SAVED_STEPS
    rate = training["ways"]["cases"][training["library"]]["measured"]["median"]
    return max(10, round(SAVED_AFTER * rate / training["step_bytes"]))


def session(plan: Plan, command: list[str], run: Path, part: float, end: signal.Signals) -> int:
    """Trains for a part of the minutes, ends the process, and returns the step that it reached.

    The session gets more time if it has not yet trained some steps beyond a checkpoint.

    Raises:
        sharnn.InputError: the process ended by itself, or trained too few steps.
    """
    first, clock = step_of_metrics(run), time.monotonic()
    process = start(command)
    try:
        while process.poll() is None:
            step, minutes = step_of_metrics(run), (time.monotonic() - clock) / 60
            due = step - first >= TINY_STEPS and (plan.tiny or minutes > MINUTES * part)
            if due and step > step_of_checkpoint(run) > 0:
                process.send_signal(end)
                process.wait()
            elif minutes > LONGEST * MINUTES * part:
                raise sharnn.InputError(
                    f"sharnn paper went from step {first} to {step} in {minutes:.0f} minutes"
                )
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
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a run's metrics; none if there is no file yet."""
    path = run / METRICS
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
