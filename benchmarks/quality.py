"""Bits per byte of several models and recipes after equal training time on the same data."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import sharnn
from benchmarks.machine import machine
from benchmarks.transformer import (
    TransformerRecipe,
    TransformerTrainer,
    parameter_count,
    window_bits,
)
from sharnn import Trainer
from sharnn.device import has_fast_bfloat16

CONTENDERS = (
    "library",
    "no-head",
    "every-head",
    "paper",
    "lamb",
    "transformer",
    "transformer-adamw",
)
PRESETS = ("tiny", "small")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
VALIDATIONS = 10  # per run; their time is not counted
# Found by a search on the first 3.2 MB of enwik8: see RUNS.md.
TRANSFORMERS = {
    "tiny": TransformerRecipe(dim=128, depth=4, heads=2, context=128, batch_size=16, lr=4e-3),
    "small": TransformerRecipe(dim=256, depth=4, heads=4, context=64, batch_size=32, lr=8e-3),
}


def sha_rnn_recipe(contender: str, preset: str, minutes: float) -> sharnn.Recipe:
    """Returns the recipe of a contender that is an SHA-RNN.

    Args:
        contender: one of `CONTENDERS`; those that differ only in the model have the same recipe.
        preset: name of the model.
        minutes: training time.
    """
    recipe = dataclasses.replace(sharnn.Recipe.preset(preset), minutes=minutes)
    if contender == "paper":
        published = sharnn.Recipe.preset("paper")
        return dataclasses.replace(published, epochs=None, minutes=minutes, precision="float32")
    if contender == "lamb":  # found by a search over short runs: see RUNS.md
        return dataclasses.replace(
            recipe,
            batch_size=16,
            segment_length=128,
            optimizer="lamb",
            lr=2e-3,
            beta2=0.999,
            eps=1e-6,
            schedule="constant",
            warmup_steps=100,
        )
    return recipe


def prepare(
    contender: str, preset: str, corpus: sharnn.Corpus, minutes: float, seed: int
) -> tuple[Any, Callable[[Any], float], dict[str, Any]]:
    """Prepares a contender for training.

    Args:
        contender: one of `CONTENDERS`.
        preset: name of the model; a Transformer gets the same number of parameters.
        corpus: the training data.
        minutes: training time.
        seed: seed of the parameters, of dropout and of the choice of text.

    Returns:
        Its trainer, a function that returns the bits per byte of given data, and its settings.

    Raises:
        sharnn.InputError: the corpus is too short, or x-transformers is not installed.
    """
    config = sharnn.ModelConfig.preset(preset)
    if contender.startswith("transformer"):
        own = TRANSFORMERS[preset]
        if contender == "transformer-adamw":
            own = dataclasses.replace(own, optimizer="adamw", lr=2e-3)
        if has_fast_bfloat16(torch.device("cpu")):
            own = dataclasses.replace(own, precision="bfloat16")
        recipe = dataclasses.replace(
            sharnn.Recipe.preset(preset), minutes=minutes, seed=seed, device="cpu"
        )
        size = sharnn.SHARNN(config).parameter_count()
        transformer = TransformerTrainer(corpus, size, own, recipe)
        stride = own.context // 4

        def score(data: Any) -> float:
            return window_bits(transformer.model, data, own.context, stride, own.precision)

        return transformer, score, {**dataclasses.asdict(own), "stride": stride}
    if contender == "paper":
        config = dataclasses.replace(config, dropout=0.1)
    if contender == "no-head":
        config = dataclasses.replace(config, attention_layers=())
    if contender == "every-head":
        config = dataclasses.replace(config, attention_layers=tuple(range(config.layers)))
    recipe = sha_rnn_recipe(contender, preset, minutes)
    recipe = dataclasses.replace(recipe, seed=seed, device="cpu")
    torch.manual_seed(seed)
    trainer = Trainer(sharnn.SHARNN(config), corpus, recipe)
    names = ("optimizer", "lr", "schedule", "warmup_steps", "batch_size", "segment_length", "clip")
    settings = {name: getattr(recipe, name) for name in names}
    settings["dropout"] = config.dropout
    settings["precision"] = str(trainer.dtype).removeprefix("torch.")
    return trainer, lambda data: sharnn.bits_per_byte(trainer.model, data), settings


def compete(
    contender: str,
    preset: str,
    corpus: sharnn.Corpus,
    minutes: float,
    seed: int = 0,
    test_size: int | None = None,
    clock: str = "wall",
) -> dict[str, Any]:
    """Trains one contender for the given time and scores it on the test data.

    Only the time inside training steps counts.

    Args:
        contender, preset, corpus, minutes, seed: see `prepare`.
        test_size: number of test bytes to score; None for all.
        clock: ``"wall"``, or ``"cpu"`` for the CPU time of this process.

    Returns:
        The entry for the results file.

    Raises:
        sharnn.InputError: see `prepare`.
    """
    trainer, bits, settings = prepare(contender, preset, corpus, minutes, seed)
    valid = corpus.valid[: min(50_000, len(corpus.valid) if test_size is None else test_size)]
    now, begin = CLOCKS[clock], time.perf_counter()
    seconds, bytes_read, losses = 0.0, 0, []
    training: list[list[float]] = []  # seconds, bits per byte
    validation: list[list[float]] = []
    while trainer.progress < 1:
        start = now()
        result = trainer.step()
        seconds += now() - start
        trainer.seconds = seconds  # by the chosen clock, instead of the trainer's own
        bytes_read += result.size
        losses.append(result.loss / math.log(2))
        if trainer.progress >= (len(validation) + 1) / VALIDATIONS:
            training.append([round(seconds, 1), round(sum(losses) / len(losses), 4)])
            validation.append([round(seconds, 1), round(bits(valid), 4)])
            losses = []
    test = corpus.test[:] if test_size is None else corpus.test[:test_size]
    return {
        "contender": contender,
        "preset": preset,
        "seed": seed,
        "minutes": minutes,
        "clock": clock,
        "wall_seconds": round(time.perf_counter() - begin),
        "parameters": parameter_count(trainer.model),
        "steps": trainer.step_count,
        "bytes_read": bytes_read,
        "bytes_per_second": bytes_read / seconds,
        "test_bits_per_byte": bits(test),
        "test_bytes": len(test),
        "training": training,
        "validation": validation,
        "settings": settings,
        "data": {
            # Without the folder of the file, which is private.
            "name": corpus.name if corpus.is_sample else Path(corpus.name).name,
            "is_sample": corpus.is_sample,
            "training_bytes": len(corpus.train),
            "fingerprint": corpus.fingerprint,
        },
        "machine": machine(),
    }
