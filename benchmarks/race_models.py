"""The contenders' models and trainers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import sharnn
from benchmarks.race_settings import Contender, Race, Setting
from benchmarks.transformer import (
    TransformerRecipe,
    TransformerTrainer,
    parameter_count,
    window_bits,
)
from benchmarks.writers import random_state
from sharnn import Trainer
from sharnn.device import pick_device, pick_precision


@dataclass(frozen=True)
class Entry:
    """A contender, ready to be trained.

    Args:
        trainer: a `sharnn.Trainer` or a `TransformerTrainer`.
        score: returns the bits per byte of given data.
        settings: details for the results file.
    """

    trainer: Any
    score: Callable[[Any], float]
    settings: dict[str, Any]


def missing_options(contender: Contender) -> list[str]:
    """Returns the settings of a contender that this version of sharnn does not have."""
    model, recipe = map(dataclasses.fields, (sharnn.ModelConfig, sharnn.Recipe))
    known = {field.name for field in (*model, *recipe)}
    return [name for name in (*contender.model, *contender.recipe) if name not in known]


def mean_length(recipe: sharnn.Recipe) -> int:
    """Returns the mean length of a recipe's segments, which vary, to the nearest byte."""
    lengths = [recipe.segment_length_at(step) for step in range(1000)]
    return round(sum(lengths) / len(lengths))


def prepare(
    race: Race,
    contender: Contender,
    setting: Setting,
    corpus: sharnn.Corpus,
    seed: int = 0,
    steps: int = 1000,
    for_timing: bool = False,
    device: str = "cpu",
) -> Entry:
    """Prepares a contender for training.

    Args:
        race, contender, setting: what to train.
        corpus: the data.
        seed: seed of the parameters and of the choice of text.
        steps: number of steps, over which the learning rate falls to 0.
        for_timing: make every step alike: the memory is full from the start, and segments have
            their mean length instead of varying ones.
        device: ``"cpu"`` or ``"cuda"``. The first parameters and the text do not depend on it.

    Raises:
        sharnn.InputError: this version of sharnn lacks an option, the model has too many
            parameters, the corpus is too short, the device is not available, or x-transformers is
            not installed.
    """
    missing = missing_options(contender)
    if missing:
        raise sharnn.InputError(f"{contender.name!r} needs {missing[0]}, an option that is missing")
    # A GPU uses the precision of CPUs with fast bfloat16, but for LSTMs: see sharnn/trainer.py.
    precision = "auto" if device == "cpu" else "bfloat16"
    base = sharnn.Recipe(
        steps=steps, epochs=None, seed=seed, device=device, precision=precision, **race.recipe
    )
    config = sharnn.ModelConfig(**race.shape)
    if contender.transformer is not None:
        entry = _transformer(race, contender, setting, corpus, base, config)
    else:
        recipe = dataclasses.replace(
            base,
            lr=setting.lr,
            batch_size=setting.batch_size,
            segment_length=setting.length,
            **contender.recipe,
        )
        config = dataclasses.replace(config, **contender.model)
        entry = _sharnn(config, recipe, corpus, for_timing)
    count = parameter_count(entry.trainer.model)
    if count > race.track.parameters:
        raise sharnn.InputError(
            f"{contender.name!r} has {count:,} parameters, and the track allows "
            f"{race.track.parameters:,}"
        )
    return entry


def _sharnn(
    config: sharnn.ModelConfig, recipe: sharnn.Recipe, corpus: sharnn.Corpus, for_timing: bool
) -> Entry:
    if for_timing:
        length = mean_length(recipe)
        recipe = dataclasses.replace(
            recipe, segment_length=length, short_segments=0.0, segment_jitter=0.0
        )
    torch.manual_seed(recipe.seed)
    trainer = Trainer(sharnn.SHARNN(config), corpus, recipe)
    if for_timing:
        rows = config.memory - recipe.segment_length
        trainer.state = random_state(config, recipe.batch_size, rows)
    settings = {
        "optimizer": recipe.optimizer,
        "weight_decay": recipe.weight_decay,
        "memory": config.memory if config.attention_layers else None,
        "precision": str(trainer.dtype).removeprefix("torch."),
    }
    return Entry(trainer, lambda data: sharnn.bits_per_byte(trainer.model, data), settings)


def _transformer(
    race: Race,
    contender: Contender,
    setting: Setting,
    corpus: sharnn.Corpus,
    recipe: sharnn.Recipe,
    config: sharnn.ModelConfig,
) -> Entry:
    """Prepares a Transformer with as many parameters as the configuration's model."""
    assert contender.transformer is not None
    dim, depth, heads = race.transformer
    dtype = pick_precision(recipe.precision, pick_device(recipe.device))
    own = TransformerRecipe(
        dim=dim,
        depth=depth,
        heads=heads,
        context=setting.length,
        batch_size=setting.batch_size,
        lr=setting.lr,
        optimizer=contender.transformer,
        precision=str(dtype).removeprefix("torch."),
    )
    size = sharnn.SHARNN(config).parameter_count()
    trainer = TransformerTrainer(corpus, size, own, recipe)
    stride = own.context // 4
    settings = {
        "optimizer": own.optimizer,
        "weight_decay": trainer.recipe.weight_decay,
        "context": own.context,
        "stride": stride,
        "precision": own.precision,
    }

    def score(data: Any) -> float:
        return window_bits(trainer.model, data, own.context, stride, own.precision)

    return Entry(trainer, score, settings)
