"""Bits per byte after equal time of training: models and recipes on one machine, the same bytes."""

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
from sharnn.precision import multiplies_bfloat16_fast
from sharnn.trainer import Trainer

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
LOOKS = 10  # validations of a run; their time is not counted
# Chosen by a search on the first 3.2 MB of enwik8: see RUNS.md.
TRANSFORMERS = {
    "tiny": TransformerRecipe(dim=128, depth=4, heads=2, context=128, batch_size=16, lr=4e-3),
    "small": TransformerRecipe(dim=256, depth=4, heads=4, context=64, batch_size=32, lr=8e-3),
}


def sha_rnn_recipe(contender: str, preset: str, minutes: float) -> sharnn.Recipe:
    """The training of one of the contenders that are SHA-RNNs.

    Args:
        contender: one of `CONTENDERS`; where only the model differs, the library's.
        preset: the model's name.
        minutes: how long it may train.

    Returns:
        The recipe.
    """
    own = dataclasses.replace(sharnn.Recipe.preset(preset), minutes=minutes)
    if contender == "paper":
        published = sharnn.Recipe.preset("paper")
        return dataclasses.replace(published, epochs=None, minutes=minutes, precision="float32")
    if contender == "lamb":  # what a search among short runs found for LAMB: see RUNS.md
        return dataclasses.replace(
            own,
            batch_size=16,
            segment_length=128,
            optimizer="lamb",
            lr=2e-3,
            beta2=0.999,
            eps=1e-6,
            schedule="constant",
            warmup_steps=100,
        )
    return own


def contestant(
    contender: str, preset: str, corpus: sharnn.Corpus, minutes: float, seed: int
) -> tuple[Any, Callable[[Any], float], dict[str, Any]]:
    """A contender that is ready to train.

    Args:
        contender: one of `CONTENDERS`.
        preset: the model it has, or whose number of parameters it has.
        corpus: what it learns from.
        minutes: how long it may train.
        seed: of weights and text.

    Returns:
        Its trainer, a function that gives bits per byte of some bytes, and its settings.

    Raises:
        sharnn.InputError: the corpus is too short, or x-transformers is missing.
    """
    config = sharnn.ModelConfig.preset(preset)
    if contender.startswith("transformer"):
        own = TRANSFORMERS[preset]
        if contender == "transformer-adamw":
            own = dataclasses.replace(own, optimizer="adamw", lr=2e-3)
        if multiplies_bfloat16_fast(torch.device("cpu")):
            own = dataclasses.replace(own, precision="bfloat16")
        recipe = dataclasses.replace(sharnn.Recipe.preset(preset), minutes=minutes, seed=seed)
        size = sharnn.SHARNN(config).parameter_count()
        rival = TransformerTrainer(corpus, size, own, recipe)
        stride = own.context // 4

        def slide(data: Any) -> float:
            return window_bits(rival.model, data, own.context, stride, own.precision)

        return rival, slide, {**dataclasses.asdict(own), "stride": stride}
    if contender == "paper":
        config = dataclasses.replace(config, dropout=0.1)
    if contender == "no-head":
        config = dataclasses.replace(config, attention_layers=())
    if contender == "every-head":
        config = dataclasses.replace(config, attention_layers=tuple(range(config.layers)))
    recipe = dataclasses.replace(sha_rnn_recipe(contender, preset, minutes), seed=seed)
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
    judged: int | None = None,
    clock: str = "wall",
) -> dict[str, Any]:
    """Trains one contender for some minutes and scores it on the test bytes.

    Only the time inside training steps counts.

    Args:
        contender, preset, corpus, minutes, seed: see `contestant`.
        judged: test bytes to score; None for all.
        clock: ``"wall"``, or ``"cpu"`` for the time that the processor gave to this process.

    Returns:
        What the results file holds of the run.

    Raises:
        sharnn.InputError: as `contestant`.
    """
    trainer, bits, settings = contestant(contender, preset, corpus, minutes, seed)
    valid = corpus.valid[: min(50_000, len(corpus.valid) if judged is None else judged)]
    now, begin = CLOCKS[clock], time.perf_counter()
    read, losses = 0, []
    training: list[list[float]] = []  # seconds, bits per byte
    validation: list[list[float]] = []
    while trainer.done < 1:
        start = now()
        result = trainer.step()
        trainer.seconds += now() - start
        read += result.size
        losses.append(result.loss / math.log(2))
        if trainer.done >= (len(validation) + 1) / LOOKS:
            training.append([round(trainer.seconds, 1), round(sum(losses) / len(losses), 4)])
            validation.append([round(trainer.seconds, 1), round(bits(valid), 4)])
            losses = []
    test = corpus.test[:] if judged is None else corpus.test[:judged]
    return {
        "contender": contender,
        "preset": preset,
        "seed": seed,
        "minutes": minutes,
        "clock": clock,
        "wall_seconds": round(time.perf_counter() - begin),
        "parameters": parameter_count(trainer.model),
        "steps": trainer.step_count,
        "bytes_read": read,
        "bytes_per_second": read / trainer.seconds,
        "test_bits_per_byte": bits(test),
        "test_bytes": len(test),
        "training": training,
        "validation": validation,
        "settings": settings,
        "data": {
            # A file's name without its folder.
            "name": corpus.name if corpus.is_sample else Path(corpus.name).name,
            "is_sample": corpus.is_sample,
            "training_bytes": len(corpus.train),
            "fingerprint": corpus.fingerprint,
        },
        "machine": machine(),
    }
