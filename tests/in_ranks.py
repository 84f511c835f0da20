"""What each of several processes does for test_distributed.py; torchrun starts it.

Usage: torchrun --nproc-per-node 3 in_ranks.py FOLDER. The folder holds two runs and a text.
Each process writes what it saw to FOLDER/RANK.json, under the names of the functions below.
"""

import contextlib
import gc
import hashlib
import io
import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from sharnn import SHARNN, InputError, bits_per_byte, load_corpus, resume, train
from sharnn.cli import main
from sharnn.distributed import joined
from sharnn.trainer import NonFiniteError, Trainer
from small import small_config, small_model, small_recipe

CORPUS = load_corpus("sample", sample_size=20_000)
FOLDER, RANK = Path(sys.argv[1]), int(os.environ["RANK"])
DROPPING = small_config(dropout=0.2, attention_layers=(0, 2))
# The streams end, and start over, within these steps.
LONG = small_recipe(
    steps=24, batch_size=9, segment_length=90, log_every=1, optimizer="lamb", schedule="cosine"
)
TEXT = bytes(torch.randint(256, (500,), generator=torch.Generator().manual_seed(5)).tolist())


def digest(model):
    """A word for the weights, to the last bit."""
    tensors = [tensor.detach().numpy().tobytes() for tensor in model.state_dict().values()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()


def summary(result):
    steps = [line["step"] for line in result.metrics]
    return {
        "reason": result.reason,
        "best": result.best,
        "steps": steps,
        "rates": [line["lr"] for line in result.metrics if "lr" in line],
        "weights": digest(result.model),
    }


def as_one():
    """For each optimiser a run to compare with that of one process."""
    results = {}
    for optimizer in ("lamb", "adamw", "muon"):
        recipe = small_recipe(optimizer=optimizer, batch_size=6, precision="float32")
        folder = FOLDER / optimizer
        results[optimizer] = summary(train(small_config(), CORPUS, recipe, folder, progress=False))
    return results


def whole():
    """A run without an interruption."""
    return summary(train(DROPPING, CORPUS, LONG, FOLDER / "whole", progress=False))


def cut():
    """The same run; the last process alone is told to stop, twice, and all go on twice."""
    original, results = Trainer.step, []

    def step(self, stopped=()):
        if RANK == 2 and self.step_count in (6, 15):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, stopped)

    Trainer.step = step
    try:
        results.append(train(DROPPING, CORPUS, LONG, FOLDER / "cut", progress=False))
        results += [resume(FOLDER / "cut", CORPUS, progress=False) for _ in range(2)]
    finally:
        Trainer.step = original
    return [summary(result) for result in results]


def more_processes():
    """A run of one process goes on."""
    said = io.StringIO()
    changes = {"steps": 18, "epochs": None}
    if RANK == 1:  # the same changes, told in another order
        changes = dict(reversed(changes.items()))
    with contextlib.redirect_stderr(said):
        result = resume(FOLDER / "of-one", CORPUS, changes, progress=False)
    return {**summary(result), "said": said.getvalue()}


def by_the_clock():
    """A run that ends by the clock, whose learning rate falls by the clock."""
    recipe = small_recipe(steps=None, minutes=0.01, log_every=1, schedule="linear", lr=1e-2)
    return summary(train(small_config(), CORPUS, recipe, progress=False))


def bad_steps():
    """Steps whose loss or gradient is not a number in one process only."""
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
                "forgot": trainer.state is None,
                "weights": digest(trainer.model),
                "scale": trainer.scaler.get_scale(),
            }
        )
    try:
        kind = "gradient"
        trainer.step()
    except NonFiniteError:
        steps.append({"gave up at": trainer.step_count, "weights": digest(trainer.model)})
    return steps


def refusals():
    """What is said, and the exit code, where the command line gets bad input."""
    text = FOLDER / "text"
    new = f"train --data {text} --out {FOLDER}/new --preset tiny --dim 16 --boom-dim 32"
    lines = {
        "batch": f"{new} --batch-size 4",
        "over a run": f"train --data {text} --out {FOLDER}/whole",
        "no data": f"train --data {FOLDER}/nowhere --out {FOLDER}/new",
        "only some lack their data": f"train --data {text}{'0' * RANK} --out {FOLDER}/new",
        "flag": f"{new} --colour red",
        "under a file": f"train --data {text} --out {text}/new --batch-size 6",
        "different": f"{new} --batch-size 6 --seed {RANK}",
        "no run": f"train --resume {FOLDER}/nowhere",
        "other data": f"train --resume {FOLDER}/whole --data sample",
        "another batch": f"train --resume {FOLDER}/whole --data {text} --batch-size 6",
        "other processes": f"train --resume {FOLDER}/of-four --data {text}",
    }
    results = {}
    for name, line in lines.items():
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = main(line.split())
        results[name] = [code, said.getvalue()]
    return results


def scores():
    """Bits per byte in shares, also where some process has no stream."""
    model = small_model()
    with joined() as ranks:
        return {
            streams: bits_per_byte(model, TEXT, batch_size=streams, ranks=ranks)
            for streams in (1, 2, 5)
        }


def symbols():
    """A byte without a symbol that only one process reads."""
    with joined() as ranks:
        try:
            bits_per_byte(
                small_model(vocab_size=100), b"a" * 90 + b"\xc8" * 3, batch_size=3, ranks=ranks
            )
        except InputError as error:
            return str(error)


def main_program():
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    jobs = (as_one, whole, cut, more_processes, by_the_clock, refusals, scores, symbols)
    seen = {}
    for job in jobs:
        seen[job.__name__] = job()
        assert not torch.distributed.is_initialized(), "left after each"
        kinds = {type(thing) for thing in gc.get_objects()}
        assert nn.parallel.DistributedDataParallel not in kinds, "it would keep the group alive"
    with joined():
        seen["bad_steps"] = bad_steps()
        seen["again"] = summary(train(small_config(), CORPUS, small_recipe(), progress=False))
        assert torch.distributed.is_initialized(), "used, and left to who made it"
    (FOLDER / f"{RANK}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main_program()
