"""`train` starts a run and `resume` continues it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharnn.checkpoint import LAST, TRAINING, build, read
from sharnn.config import ModelConfig
from sharnn.data import Corpus
from sharnn.device import cpu_threads
from sharnn.distributed import ProcessGroup, process_group
from sharnn.errors import InputError
from sharnn.io.console import notify
from sharnn.model import SHARNN
from sharnn.recipe import Recipe
from sharnn.run import Metrics, Result, Run
from sharnn.run_checks import check_header
from sharnn.run_folder import create_folder, locked_run, require_new_folder
from sharnn.trainer import Trainer
from sharnn.weights import named_weights, usable

DIFFERENT_INPUTS = "the training processes have different data or settings"
# Settings of the recipe that a resumed run keeps: its state belongs to them.
FIXED = ("batch_size", "optimizer")


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
    model with the lowest validation loss). A second process can't train the run at the same time,
    because of the lock file ``.lock``. After Ctrl-C or a termination signal, the run finishes
    the current step, saves and returns.

    In a script started by torchrun, every process calls this with the same arguments, and all of
    them train one model together. Only rank 0 writes files, shows progress and calls
    ``on_metrics`` and ``on_checkpoint``.

    Args:
        config: the model's shape.
        corpus: the training and validation data.
        recipe: the training settings.
        out: the run folder, which must be empty or not exist yet; None to write nothing.
        initial: a model to start from. Its weights must have the same shapes; memory, dropout,
            memory window and shifted keys may differ. None to start from random weights.
        on_metrics: called with each line of metrics, for example to draw a curve.
        on_checkpoint: called after each new checkpoint, for example to copy it.
        progress_bar: show a progress bar on standard error.
        tensorboard: also write TensorBoard events to the run folder.
        settings: additional values for ``config.json``.

    Raises:
        InputError: the folder has files or can't be written, the corpus is too short, the weights
            to start from have other shapes, or a setting is out of range.

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
    with process_group() as group, ExitStack() as stack:
        group.require_same(f"{config} {recipe} {corpus.fingerprint}", DIFFERENT_INPUTS)
        with group.shared_errors():
            if folder is not None and group.is_rank0:
                require_new_folder(folder)
            torch.manual_seed(recipe.seed)
            trainer = Trainer(_new_model(config, initial), corpus, recipe)
        with group.shared_errors():
            if folder is not None and group.is_rank0:
                create_folder(folder)
                stack.enter_context(locked_run(folder))
                require_new_folder(folder)  # another process may have started a run in it
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
    threads: int | None = None,
) -> Result:
    """Continues a run from its last checkpoint, as if it had not been interrupted.

    In a script started by torchrun, every process calls this, as with `train`; rank 0 reads the
    checkpoint. A run can continue on another device, in another precision and with another number
    of processes; one line on standard error then describes what will differ.

    Args:
        folder: the run folder.
        corpus: the same bytes as before.
        changes: settings of the recipe to replace, for example ``{"steps": 2000}``. Batch size and
            optimiser can't change; to change them, start a new run with ``train(..., initial=)``.
        on_metrics, on_checkpoint, progress_bar, tensorboard: see `train`.
        threads: number of CPU threads; None for the number the run was trained with, because
            another one changes how sums are rounded.

    Raises:
        InputError: there is no run to resume, another process trains it, its files are damaged,
            the corpus differs, or a change is not allowed.
    """
    folder = Path(folder)
    changes = changes or {}
    with process_group() as group, ExitStack() as stack:
        group.require_same(f"{corpus.fingerprint} {sorted(changes.items())}", DIFFERENT_INPUTS)
        with group.shared_errors():
            if group.is_rank0:
                _require_run(folder)
                stack.enter_context(locked_run(folder))
        tensors, header = _read_run(group, folder, corpus)
        with group.shared_errors():
            recipe = _changed_recipe(header["recipe"], changes)
            trainer = Trainer(build(tensors, header, str(folder)), corpus, recipe)
            training = {
                name.removeprefix(TRAINING): tensor
                for name, tensor in tensors.items()
                if name.startswith(TRAINING)
            }
            try:
                trainer.restore(training, header["training"])
            except InputError as error:
                raise InputError(f"{folder / LAST} is damaged: {error}") from error
        stack.enter_context(cpu_threads(threads or _recorded_threads(trainer, header["training"])))
        run = Run(trainer, folder, on_metrics, tensorboard, on_checkpoint)
        run.restore(header["run"])
        changed = _describe_changes(trainer, header["training"])
        if group.is_rank0 and changed is not None:
            notify(f"{folder} was trained {changed}")
        return run.loop(progress_bar)


def _new_model(config: ModelConfig, initial: SHARNN | None) -> SHARNN:
    """Returns a model with random weights, or with those of another model."""
    model = SHARNN(config)
    if initial is not None:
        weights = named_weights(usable(initial))
        shapes = [{n: t.shape for n, t in m.items()} for m in (model.state_dict(), weights)]
        if shapes[0] != shapes[1]:
            raise InputError("the model to start from has a different shape from the one to train")
        model.load_state_dict(weights)
    return model


def _require_run(folder: Path) -> None:
    """Raises an error if a folder contains no run."""
    if not (folder / LAST).is_file():
        raise InputError(f"{folder} contains no run to resume: it has no {LAST}")


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
            tensors, header = read(path, training=True)
            if "recipe" not in header:
                raise InputError(f"{path} is a model without training state: it can't be resumed")
            try:
                check_header(header)
                Recipe.from_dict(header["recipe"])
            except InputError as error:
                raise InputError(f"{path} is damaged: {error}") from error
            if header["fingerprint"] != corpus.fingerprint:
                raise InputError(
                    f"{folder} was trained on different data from {corpus.name}, or with another "
                    "split: give the data and the split it was trained on"
                )
    return group.broadcast(tensors), group.broadcast_object(header)


def _changed_recipe(recorded: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """Returns the recipe of a resumed run."""
    before = Recipe.from_dict(recorded)
    for name in FIXED:
        value = getattr(before, name)
        if changes.get(name, value) != value:
            raise InputError(
                f"{name} can't change when a run is resumed (it is {value}): start a new run from "
                "the weights of this one, with --init"
            )
    return Recipe.from_dict({**recorded, **changes})


def _recorded_threads(trainer: Trainer, before: dict[str, Any]) -> int:
    """Returns the number of threads with which the run continues bit for bit, if it can."""
    now = trainer.snapshot_values()
    same = all(before[name] == now[name] for name in ("world_size", "device", "precision"))
    return before["threads"] if same else now["threads"]


def _describe_changes(trainer: Trainer, before: dict[str, Any]) -> str | None:
    """Describes how the processor or the arithmetic of a run changed; None if they are the same."""
    now = trainer.snapshot_values()
    changed = [
        (name, preposition)
        for name, preposition in (
            ("world_size", "by"),
            ("device", "on"),
            ("precision", "in"),
            ("threads", "with"),
        )
        # Threads matter on the CPU only.
        if before[name] != now[name] and (name != "threads" or now["device"] == "cpu")
    ]
    if not changed:
        return None
    old, new = (
        " ".join(f"{word} {_count(name, values[name])}" for name, word in changed)
        for values in (before, now)
    )
    effect = "its results will differ a little from those of an uninterrupted run"
    if before["world_size"] != now["world_size"]:
        new = new.replace("by", "with", 1)
        effect = "its streams are redistributed, and dropout will use other random numbers"
    return f"{old} and continues {new}: {effect}"


def _count(name: str, value: Any) -> str:
    """Returns a value with its unit, if it has one."""
    units = {"world_size": ("process", "processes"), "threads": ("thread", "threads")}
    return f"{value} {units[name][value != 1]}" if name in units else str(value)
