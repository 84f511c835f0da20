"""Training from the start, and going on with a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharnn.checkpoint import LAST, TRAINING, build, read
from sharnn.config import ModelConfig
from sharnn.data import Corpus
from sharnn.distributed import Ranks, joined
from sharnn.errors import InputError
from sharnn.model import SHARNN
from sharnn.recipe import Recipe
from sharnn.run import Metrics, Result, Run
from sharnn.trainer import Trainer

DIFFERENT = "the training processes were given different data or settings"


def train(
    config: ModelConfig,
    corpus: Corpus,
    recipe: Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    initial: SHARNN | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
    on_checkpoint: Callable[[], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    settings: dict[str, Any] | None = None,
) -> Result:
    """Trains a new model.

    The run folder holds ``config.json``, ``metrics.jsonl`` (one JSON object a line, losses in bits
    per byte), ``last.safetensors`` (everything `resume` needs) and ``best.safetensors`` (the model
    with the lowest validation loss). Ctrl-C or a termination signal ends the current step, saves
    and returns.

    In a script that torchrun started, every process calls this with the same arguments, and they
    train one model together; only the first writes, shows progress and calls ``on_metrics``
    and ``on_checkpoint``.

    Args:
        config: the model's shape.
        corpus: what it learns from.
        recipe: how.
        out: the run folder, made if needed; None writes nothing.
        initial: a model whose weights to start from, of the same shape; memory, dropout and
            window may differ. None starts from random weights.
        on_metrics: called with each line of metrics, for example to draw a curve.
        on_checkpoint: called whenever the folder has a new checkpoint, for example to copy it.
        progress: show a progress bar on the standard error stream.
        tensorboard: also write TensorBoard events to the run folder.
        settings: more values to keep in ``config.json``.

    Returns:
        The result.

    Raises:
        InputError: the folder already holds a run or can't be written, the corpus is too short,
            the model to start from has another shape, or a setting is out of range.

    Source: paper, training settings.

    Example:
        >>> from sharnn.data import load_corpus
        >>> config = ModelConfig(dim=16, boom_dim=64, layers=2, attention_layers=(0,), memory=64)
        >>> recipe = Recipe(steps=2, batch_size=2, segment_length=16, eval_bytes=100)
        >>> corpus = load_corpus("sample", sample_size=20_000)
        >>> result = train(config, corpus, recipe, progress=False)
        >>> result.reason, sorted(result.metrics[-1])
        ('done', ['step', 'valid_bits_per_byte'])
    """
    with joined() as ranks:
        folder = Path(out) if out is not None else None
        ranks.require_same(f"{config} {recipe} {corpus.fingerprint}", DIFFERENT)
        ranks.first(lambda: _refuse_a_run(folder))
        torch.manual_seed(recipe.seed)
        trainer = ranks.agree(lambda: Trainer(_new_model(config, initial), corpus, recipe))
        run = Run(trainer, folder, on_metrics, tensorboard, on_checkpoint)
        run.create(settings or {})
        return run.go(progress)


def resume(
    folder: str | os.PathLike[str],
    corpus: Corpus,
    changes: dict[str, Any] | None = None,
    *,
    on_metrics: Callable[[Metrics], None] | None = None,
    on_checkpoint: Callable[[], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> Result:
    """Goes on with a run from its last checkpoint, as if it had never stopped.

    In a script that torchrun started, every process calls this, as in `train`; the first one reads
    the run. With another number of processes than before, one line on the standard error stream
    says what goes on differently.

    Args:
        folder: the run folder.
        corpus: the same bytes as before.
        changes: settings of the recipe to replace, for example ``{"steps": 2000}``.
        on_metrics, on_checkpoint, progress, tensorboard: see `train`.

    Returns:
        The result.

    Raises:
        InputError: there is no run to resume, the corpus is another one, or a change is refused.
    """
    folder = Path(folder)
    with joined() as ranks:
        ranks.require_same(f"{corpus.fingerprint} {sorted((changes or {}).items())}", DIFFERENT)
        trainer, header = _restored(ranks, folder, corpus, changes or {})
        run = Run(trainer, folder, on_metrics, tensorboard, on_checkpoint)
        run.take_up(header["run"])
        before = header["training"].get("ranks", 1)
        if ranks.is_first and before != ranks.count:
            print(
                f"sharnn: {folder} was trained by {_processes(before)} and goes on with "
                f"{_processes(ranks.count)}: its streams are dealt anew, and dropout draws differ "
                "from here on",
                file=sys.stderr,
            )
        return run.go(progress)


def _new_model(config: ModelConfig, initial: SHARNN | None) -> SHARNN:
    """A model with random weights, or with another's."""
    model = SHARNN(config)
    if initial is not None:
        shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (model, initial)]
        if shapes[0] != shapes[1]:
            raise InputError("the model to start from has another shape than the one to train")
        model.load_state_dict(initial.state_dict())
    return model


def _refuse_a_run(folder: Path | None) -> None:
    """A run is never overwritten."""
    if folder is not None and (folder / LAST).exists():
        raise InputError(f"{folder} already holds a run: resume it, or name another folder")


def _read_run(folder: Path, corpus: Corpus) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a run's last checkpoint, if it can go on with these bytes."""
    if not (folder / LAST).is_file():
        raise InputError(f"{folder} holds no run to resume: it has no {LAST}")
    tensors, header = read(folder / LAST, training=True)
    if "recipe" not in header:
        raise InputError(f"{folder / LAST} is a model without its training: it can't be resumed")
    if header["fingerprint"] != corpus.fingerprint:
        raise InputError(f"{folder} was trained on other data than {corpus.name}: give the same")
    return tensors, header


def _restored(
    ranks: Ranks, folder: Path, corpus: Corpus, changes: dict[str, Any]
) -> tuple[Trainer, dict[str, Any]]:
    """A trainer that stands where a checkpoint was written, and the checkpoint's header."""
    first_tensors, first_header = ranks.agree(
        lambda: _read_run(folder, corpus) if ranks.is_first else ({}, {})
    )
    header, tensors = ranks.first(lambda: first_header), ranks.spread(first_tensors)

    def take_up() -> Trainer:
        recipe = Recipe.from_dict({**header["recipe"], **changes})
        trainer = Trainer(build(tensors, header, str(folder)), corpus, recipe)
        extra = {n.removeprefix(TRAINING): t for n, t in tensors.items() if n.startswith(TRAINING)}
        trainer.restore(extra, header["training"])
        return trainer

    return ranks.agree(take_up), header


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
