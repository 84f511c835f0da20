"""The program that test_distributed.py runs in several processes with torchrun.

Usage: torchrun --nproc-per-node 3 distributed_program.py FOLDER

The folder contains two runs and a text. Each process writes to FOLDER/RANK.json what the functions
below return, by their names.
"""

import contextlib
import gc
import hashlib
import io
import itertools
import json
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import nn

from sharnn import SHARNN, InputError, bits_per_byte, load_corpus, resume, train
from sharnn.cli import main
from sharnn.distributed import process_group
from sharnn.recipe import OPTIMIZERS
from sharnn.trainer import NonFiniteError, Trainer
from small import small_config, small_model, small_recipe

CORPUS = load_corpus("sample", sample_size=20_000)
FOLDER, RANK = Path(sys.argv[1]), int(os.environ["RANK"])
WITH_DROPOUT = small_config(dropout=0.2, attention_layers=(0, 2))
# The streams end and start over within these steps.
LONG_RECIPE = small_recipe(
    steps=24, batch_size=9, segment_length=90, log_every=1, optimizer="lamb", schedule="cosine"
)
TEXT = bytes(torch.randint(256, (500,), generator=torch.Generator().manual_seed(5)).tolist())


def digest(model):
    """Returns a hash of the weights."""
    tensors = [tensor.detach().numpy().tobytes() for tensor in model.state_dict().values()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()


def summary(result):
    """Returns everything about a result that the processes must agree on."""
    steps = [line["step"] for line in result.metrics]
    return {
        "reason": result.reason,
        "best": result.best,
        "steps": steps,
        "rates": [line["lr"] for line in result.metrics if "lr" in line],
        "weights": digest(result.model),
    }


def as_one():
    """Trains with each optimiser, to compare with a single process."""
    results = {}
    for optimizer in OPTIMIZERS:
        recipe = small_recipe(optimizer=optimizer, batch_size=6, precision="float32")
        folder = FOLDER / optimizer
        results[optimizer] = summary(
            train(small_config(), CORPUS, recipe, folder, progress_bar=False)
        )
    return results


def uneven():
    """Trains as in `as_one` while one process needs much longer for each step than the others."""
    original = Trainer._next_segment

    def slow(self):
        time.sleep(0.1 * (RANK == 1))
        return original(self)

    recipe = small_recipe(optimizer="lamb", batch_size=6, precision="float32")
    with mock.patch.object(Trainer, "_next_segment", slow):
        return summary(train(small_config(), CORPUS, recipe, progress_bar=False))


def whole():
    """Trains without interruption."""
    return summary(train(WITH_DROPOUT, CORPUS, LONG_RECIPE, FOLDER / "whole", progress_bar=False))


def cut():
    """Trains with two interruptions, each in the last process only, and resumes in all."""
    original, results = Trainer.step, []

    def step(self, signals=()):
        if RANK == 2 and self.step_count in (6, 15):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, signals)

    Trainer.step = step
    try:
        results.append(train(WITH_DROPOUT, CORPUS, LONG_RECIPE, FOLDER / "cut", progress_bar=False))
        results += [resume(FOLDER / "cut", CORPUS, progress_bar=False) for _ in range(2)]
    finally:
        Trainer.step = original
    return [summary(result) for result in results]


def failing_log():
    """Trains until rank 0 can't write its metrics; all processes end at the same step."""

    def callback(line):
        if line["step"] == 4:
            raise OSError(28, "No space left on device")

    folder = FOLDER / "failing"
    try:
        result = train(
            WITH_DROPOUT, CORPUS, LONG_RECIPE, folder, progress_bar=False, on_metrics=callback
        )
    except OSError as error:
        return [error.strerror, error.__notes__]
    return [result.reason, result.metrics[-1]["step"]]


def more_processes():
    """Resumes a run of one process in all processes."""
    message = io.StringIO()
    changes = {"steps": 18, "epochs": None}
    if RANK == 1:  # the same changes in another order
        changes = dict(reversed(changes.items()))
    with contextlib.redirect_stderr(message):
        result = resume(FOLDER / "of-one", CORPUS, changes, progress_bar=False)
    return {**summary(result), "message": message.getvalue()}


def limited_by_minutes():
    """Trains for 3 seconds on clocks that differ; on rank 0's clock a step takes 0.25 seconds."""
    recipe = small_recipe(steps=None, minutes=0.05, log_every=1, schedule="linear", lr=1e-2)
    clock = itertools.count(step=0.25 * (RANK + 1))  # rank 0 reads it at a step's start and end
    clocks = SimpleNamespace(perf_counter=clock.__next__, process_time=time.process_time)
    with mock.patch("sharnn.trainer.time", clocks):
        return summary(train(small_config(), CORPUS, recipe, progress_bar=False))


def non_finite_steps():
    """Takes steps whose loss or gradient is not finite in one process only."""
    torch.manual_seed(0)
    trainer = Trainer(SHARNN(small_config()), CORPUS, small_recipe(max_skips=2))
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    kinds, steps = ["", "loss", "", "gradient", "", "loss", "loss"], []

    def poison(module, inputs, output):
        logits, state = output
        if RANK == 1 and kind == "loss":
            return logits * math.nan, state
        if RANK == 1 and kind == "gradient":
            logits.register_hook(lambda gradient: gradient * math.inf)
        return logits, state

    kind = ""
    trainer.model.register_forward_hook(poison)
    for kind in kinds:  # noqa: B007 (the hook reads it)
        result = trainer.step()
        steps.append(
            {
                "skipped": result.skipped,
                "state dropped": trainer.state is None,
                "weights": digest(trainer.model),
                "scale": trainer.scaler.get_scale(),
            }
        )
    try:
        kind = "gradient"
        trainer.step()
    except NonFiniteError:
        steps.append({"stopped at": trainer.step_count, "weights": digest(trainer.model)})
    return steps


def invalid_commands():
    """Runs invalid commands; returns the exit code and the message of each."""
    text = FOLDER / "text"
    new = f"train --data {text} --out {FOLDER}/new --preset tiny --dim 16 --boom-dim 32"
    commands = {
        "batch size": f"{new} --batch-size 4",
        "existing run": f"train --data {text} --out {FOLDER}/whole",
        "no data": f"train --data {FOLDER}/nowhere --out {FOLDER}/new",
        "data missing for some": f"train --data {text}{'0' * RANK} --out {FOLDER}/new",
        "unknown option": f"{new} --colour red",
        "folder inside a file": f"train --data {text} --out {text}/new --batch-size 6",
        "different settings": f"{new} --batch-size 6 --seed {RANK}",
        "no run": f"train --resume {FOLDER}/nowhere",
        "other data": f"train --resume {FOLDER}/whole --data sample",
        "other batch size": f"train --resume {FOLDER}/whole --data {text} --batch-size 6",
        "other number of processes": f"train --resume {FOLDER}/of-four --data {text}",
    }
    results = {}
    for name, command in commands.items():
        message = io.StringIO()
        with contextlib.redirect_stderr(message), contextlib.redirect_stdout(message):
            code = main(command.split())
        results[name] = [code, message.getvalue()]
    return results


def scores():
    """Scores a text in all processes, also with fewer streams than processes."""
    model = small_model()
    with process_group() as group:
        return {
            streams: bits_per_byte(model, TEXT, batch_size=streams, group=group)
            for streams in (1, 2, 5)
        }


def symbols():
    """Scores a byte outside the vocabulary, which only one process reads."""
    with process_group() as group:
        try:
            bits_per_byte(
                small_model(vocab_size=100), b"a" * 90 + b"\xc8" * 3, batch_size=3, group=group
            )
        except InputError as error:
            return str(error)


def main_program():
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    jobs = (
        as_one,
        uneven,
        whole,
        cut,
        more_processes,
        limited_by_minutes,
        invalid_commands,
        scores,
        symbols,
    )
    results = {}
    for job in jobs:
        results[job.__name__] = job()
        assert not torch.distributed.is_initialized(), "each job must leave the group"
        kinds = {type(thing) for thing in gc.get_objects()}
        assert nn.parallel.DistributedDataParallel not in kinds, "it would keep the group alive"
    with process_group():
        results["failing_log"] = failing_log()  # the group must outlive an error in one process
        results["non_finite_steps"] = non_finite_steps()
        results["existing_group"] = summary(
            train(small_config(), CORPUS, small_recipe(), progress_bar=False)
        )
        assert torch.distributed.is_initialized(), "the existing group must stay open"
    (FOLDER / f"{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main_program()
