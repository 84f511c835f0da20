"""`train` starts a run and `resume` continues it."""

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
from sharnn.distributed import ProcessGroup, process_group
from sharnn.errors import InputError
from sharnn.model import SHARNN
from sharnn.recipe import Recipe
from sharnn.run import Metrics, Result, Run
from sharnn.trainer import Trainer

DIFFERENT_INPUTS = "the training processes have different data or settings"


def train(
    config: ModelConfig,
    corpus: Corpus,
    recipe: Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    initial: SHARNN | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
    on_checkpoint: Callable[[], None] | None = None,
    progress_bar: bool = True,
    tensorboard: bool = False,
    settings: dict[str, Any] | None = None,
) -> Result:
    """Trains a new model.

    The run folder contains ``config.json``, ``metrics.jsonl`` (one JSON object per line, losses in
    bits per byte), ``last.safetensors`` (everything `resume` needs) and ``best.safetensors`` (the
    model with the lowest validation loss). After Ctrl-C or a termination signal, the run finishes
    the current step, saves and returns.

    In a script started by torchrun, every process calls this with the same arguments, and all of
    them train one model together. Only rank 0 writes files, shows progress and calls
    ``on_metrics`` and ``on_checkpoint``.

    Args:
        config: the model's shape.
        corpus: the training and validation data.
        recipe: the training settings.
        out: the run folder, which is created if needed; None to write nothing.
        initial: a model to start from. Its weights must have the same shapes; memory, dropout and
            memory window may differ. None to start from random weights.
        on_metrics: called with each line of metrics, for example to draw a curve.
        on_checkpoint: called after each new checkpoint, for example to copy it.
        progress_bar: show a progress bar on standard error.
        tensorboard: also write TensorBoard events to the run folder.
        settings: additional values for ``config.json``.

    Raises:
        InputError: the folder already contains a run or can't be written, the corpus is too
            short, the weights to start from have other shapes, or a setting is out of range.

    Source: paper, training settings.

    Example:
        >>> from sharnn.data import load_corpus
        >>> config = ModelConfig(dim=16, boom_dim=64, layers=2, attention_layers=(0,), memory=64)
        >>> recipe = Recipe(steps=2, batch_size=2, segment_length=16, eval_bytes=100)
        >>> corpus = load_corpus("sample", sample_size=20_000)
        >>> result = train(config, corpus, recipe, progress_bar=False)
        >>> result.reason, sorted(result.metrics[-1])
        ('done', ['step', 'valid_bits_per_byte'])
    """
    folder = Path(out) if out is not None else None
    with process_group() as group:
        group.require_same(f"{config} {recipe} {corpus.fingerprint}", DIFFERENT_INPUTS)
        with group.shared_errors():
            if folder is not None and group.is_rank0:
                _require_no_run(folder)
            torch.manual_seed(recipe.seed)
            trainer = Trainer(_new_model(config, initial), corpus, recipe)
        run = Run(trainer, folder, on_metrics, tensorboard, on_checkpoint)
        run.create(settings or {})
        return run.loop(progress_bar)


def resume(
    folder: str | os.PathLike[str],
    corpus: Corpus,
    changes: dict[str, Any] | None = None,
    *,
    on_metrics: Callable[[Metrics], None] | None = None,
    on_checkpoint: Callable[[], None] | None = None,
    progress_bar: bool = True,
    tensorboard: bool = False,
) -> Result:
    """Continues a run from its last checkpoint, as if it had not been interrupted.

    In a script started by torchrun, every process calls this, as with `train`; rank 0 reads the
    checkpoint. If the number of processes has changed, one line on standard error describes what
    will differ.

    Args:
        folder: the run folder.
        corpus: the same bytes as before.
        changes: settings of the recipe to replace, for example ``{"steps": 2000}``.
        on_metrics, on_checkpoint, progress_bar, tensorboard: see `train`.

    Raises:
        InputError: there is no run to resume, the corpus differs, or a change is not allowed.
    """
    folder = Path(folder)
    changes = changes or {}
    with process_group() as group:
        group.require_same(f"{corpus.fingerprint} {sorted(changes.items())}", DIFFERENT_INPUTS)
        tensors, header = _read_run(group, folder, corpus)
        with group.shared_errors():
            recipe = Recipe.from_dict({**header["recipe"], **changes})
            trainer = Trainer(build(tensors, header, str(folder)), corpus, recipe)
            training = {
                name.removeprefix(TRAINING): tensor
                for name, tensor in tensors.items()
                if name.startswith(TRAINING)
            }
            trainer.restore(training, header["training"])
        run = Run(trainer, folder, on_metrics, tensorboard, on_checkpoint)
        run.restore(header["run"])
        before = header["training"]["world_size"]
        if group.is_rank0 and before != group.world_size:
            print(
                f"sharnn: {folder} was trained by {_processes(before)} and continues with "
                f"{_processes(group.world_size)}: its streams are redistributed, and dropout "
                "will use other random numbers",
                file=sys.stderr,
            )
        return run.loop(progress_bar)


def _new_model(config: ModelConfig, initial: SHARNN | None) -> SHARNN:
    """Returns a model with random weights, or with those of another model."""
    model = SHARNN(config)
    if initial is not None:
        shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (model, initial)]
        if shapes[0] != shapes[1]:
            raise InputError("the model to start from has a different shape from the one to train")
        model.load_state_dict(initial.state_dict())
    return model


def _require_no_run(folder: Path) -> None:
    """Raises an error if a folder contains a run, which must not be overwritten."""
    if (folder / LAST).exists():
        raise InputError(f"{folder} already contains a run: resume it, or name another folder")


def _read_run(
    group: ProcessGroup, folder: Path, corpus: Corpus
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns tensors and header of a run's last checkpoint, which rank 0 reads, in every process.

    Raises an error if the run can't continue with this corpus.
    """
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {}
    with group.shared_errors():
        if group.is_rank0:
            path = folder / LAST
            if not path.is_file():
                raise InputError(f"{folder} contains no run to resume: it has no {LAST}")
            tensors, header = read(path, training=True)
            if "recipe" not in header:
                raise InputError(f"{path} is a model without training state: it can't be resumed")
            if header["fingerprint"] != corpus.fingerprint:
                raise InputError(
                    f"{folder} was trained on different data from {corpus.name}: give the data "
                    "it was trained on"
                )
    return group.broadcast(tensors), group.broadcast_object(header)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
