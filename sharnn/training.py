"""A training run: its folder, metrics, validation, checkpoints, progress bar and interruptions."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from sharnn.checkpoint import BEST, LAST, TRAINING, build, read, save, write_atomically
from sharnn.config import ModelConfig
from sharnn.data import Corpus
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.model import SHARNN
from sharnn.recipe import Recipe
from sharnn.trainer import NonFiniteError, Trainer

METRICS, SETTINGS = "metrics.jsonl", "config.json"
Metrics = dict[str, Any]


@dataclass
class Result:
    """How a run ended.

    Args:
        model: the trained model, in evaluation mode.
        metrics: one dictionary for each line of ``metrics.jsonl`` written since the start or the
            resumption.
        reason: ``"done"``, ``"interrupted"`` or ``"non-finite"``.
        message: one line for a person.
        best: lowest validation bits per byte; None where nothing was validated.
    """

    model: SHARNN
    metrics: list[Metrics]
    reason: str
    message: str
    best: float | None


def train(
    config: ModelConfig,
    corpus: Corpus,
    recipe: Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    on_metrics: Callable[[Metrics], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    settings: dict[str, Any] | None = None,
) -> Result:
    """Trains a new model.

    The run folder holds ``config.json``, ``metrics.jsonl`` (one JSON object a line, losses in bits
    per byte), ``last.safetensors`` (everything `resume` needs) and ``best.safetensors`` (the model
    with the lowest validation loss). Ctrl-C or a termination signal ends the current step, saves
    and returns.

    Args:
        config: the model's shape.
        corpus: what it learns from.
        recipe: how.
        out: the run folder, made if needed; None writes nothing.
        on_metrics: called with each line of metrics, for example to draw a curve.
        progress: show a progress bar on the standard error stream.
        tensorboard: also write TensorBoard events to the run folder.
        settings: more values to keep in ``config.json``.

    Returns:
        The result.

    Raises:
        InputError: the folder already holds a run or can't be written, the corpus is too short,
            or a setting is out of range.

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
    folder = None
    if out is not None:
        folder = Path(out)
        if (folder / LAST).exists():
            raise InputError(f"{folder} already holds a run: resume it, or name another folder")
    torch.manual_seed(recipe.seed)
    trainer = Trainer(SHARNN(config), corpus, recipe)
    run = _Run(trainer, folder, on_metrics, tensorboard)
    if folder is not None:
        run.create(settings or {})
    return run.go(progress)


def resume(
    folder: str | os.PathLike[str],
    corpus: Corpus,
    changes: dict[str, Any] | None = None,
    *,
    on_metrics: Callable[[Metrics], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> Result:
    """Goes on with a run from its last checkpoint, as if it had never stopped.

    Args:
        folder: the run folder.
        corpus: the same bytes as before.
        changes: settings of the recipe to replace, for example ``{"steps": 2000}``.
        on_metrics, progress, tensorboard: see `train`.

    Returns:
        The result.

    Raises:
        InputError: there is no run to resume, the corpus is another one, or a change is refused.
    """
    folder = Path(folder)
    if not (folder / LAST).is_file():
        raise InputError(f"{folder} holds no run to resume: it has no {LAST}")
    tensors, header = read(folder / LAST, training=True)
    if "recipe" not in header:
        raise InputError(f"{folder / LAST} is a model without its training: it can't be resumed")
    if header["fingerprint"] != corpus.fingerprint:
        raise InputError(f"{folder} was trained on other data than {corpus.name}: give the same")
    recipe = Recipe.from_dict({**header["recipe"], **(changes or {})})
    trainer = Trainer(build(tensors, header, str(folder)), corpus, recipe)
    extra = {n.removeprefix(TRAINING): t for n, t in tensors.items() if n.startswith(TRAINING)}
    trainer.restore(extra, header["training"])
    run = _Run(trainer, folder, on_metrics, tensorboard)
    run.take_up(header["run"])
    return run.go(progress)


@dataclass
class _Window:
    """Sums since the last line of metrics; a checkpoint keeps them, so that lines stay the same."""

    bits: float = 0.0
    size: int = 0
    seconds: float = 0.0
    norm: float = 0.0


@dataclass
class _Run:
    """A trainer and everything around it."""

    trainer: Trainer
    folder: Path | None
    on_metrics: Callable[[Metrics], None] | None
    tensorboard: bool
    best: float | None = None
    window: _Window = field(default_factory=_Window)
    metrics: list[Metrics] = field(default_factory=list)
    validated: int = -1  # the step of the last validation
    events: Any = None  # TensorBoard's writer

    def create(self, settings: dict[str, Any]) -> None:
        """Makes the run folder with the settings and a checkpoint of the untrained model."""
        assert self.folder is not None
        trainer = self.trainer
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"can't make {self.folder}: {error.strerror or error}") from error
        values = {
            "model": trainer.model.config.to_dict(),
            "parameters": trainer.model.parameter_count(),
            "recipe": dataclasses.asdict(trainer.recipe),
            "corpus": trainer.corpus.name,
            "device": str(trainer.device),
            "precision": str(trainer.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **settings,
        }
        content = json.dumps(values, indent=2) + "\n"
        write_atomically(self.folder / SETTINGS, content.encode())
        write_atomically(self.folder / METRICS, b"")
        self.save_last()

    def take_up(self, values: dict[str, Any]) -> None:
        """Restores what the checkpoint kept of the run, and drops later lines of metrics."""
        assert self.folder is not None
        self.best, self.validated = values["best"], values["validated"]
        self.window = _Window(**values["window"])
        path = self.folder / METRICS
        lines = path.read_text().splitlines() if path.exists() else []
        kept = []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                break  # the run was killed while it wrote this line
            if record["step"] > self.trainer.step_count:
                break
            kept.append(line + "\n")
        write_atomically(path, "".join(kept).encode())

    def go(self, progress: bool) -> Result:
        """Trains to the end, or to an interruption."""
        trainer, recipe = self.trainer, self.trainer.recipe
        reason, message = "done", ""
        with _signals() as stopped, self._writer(), _bar(progress, trainer) as bar:
            try:
                while trainer.done < 1 and not stopped:
                    self._step(bar)
                    if trainer.step_count % recipe.eval_every == 0:
                        self._validate()
                    if trainer.step_count % recipe.checkpoint_every == 0:
                        self.save_last()
                if stopped:
                    reason, message = "interrupted", f"interrupted at step {trainer.step_count}"
                elif self.validated != trainer.step_count:
                    self._validate()
            except NonFiniteError as error:
                reason, message = "non-finite", str(error)
            self.save_last()
        if reason == "done":
            message = f"done after {trainer.step_count} steps"
        if self.best is not None:
            message += f"; best validation {self.best:.4f} bits per byte"
        if trainer.skipped:
            message += f"; {trainer.skipped} non-finite steps were skipped"
        return Result(trainer.model.eval(), self.metrics, reason, message, self.best)

    def _step(self, bar: tqdm[Any]) -> None:
        """One step, and a line of metrics where one is due."""
        trainer, window = self.trainer, self.window
        start = time.perf_counter()
        result = trainer.step()
        seconds = time.perf_counter() - start
        trainer.seconds += seconds
        if not result.skipped:
            window.bits += result.loss / math.log(2) * result.size
            window.size += result.size
            window.norm = max(window.norm, result.gradient_norm)
        window.seconds += seconds
        if trainer.step_count % trainer.recipe.log_every == 0 and window.size:
            line: Metrics = {
                "step": trainer.step_count,
                "epoch": round(trainer.epochs, 4),
                "bytes": window.size,
                "seconds": round(trainer.seconds, 3),
                "train_bits_per_byte": round(window.bits / window.size, 5),
                "lr": result.lr,
                "largest_gradient_norm": round(window.norm, 4),
                "bytes_per_second": round(window.size / window.seconds),
                "skipped": trainer.skipped,
            }
            self.window = _Window()
            self._emit(line)
            bar.set_postfix_str(
                f"step {line['step']}, {line['train_bits_per_byte']:.3f} bits per byte, "
                f"{line['bytes_per_second'] / 1000:.1f} kB/s"
                + (f", {trainer.skipped} skipped" if trainer.skipped else "")
            )
        bar.update(min(100.0, 100 * trainer.done) - bar.n)

    def _validate(self) -> None:
        """Scores the validation bytes, and keeps the model where it is the best so far."""
        trainer = self.trainer
        valid = trainer.corpus.valid
        if trainer.recipe.eval_bytes is not None:
            valid = valid[: max(2, trainer.recipe.eval_bytes)]
        bits = bits_per_byte(trainer.model, valid, batch_size=trainer.recipe.eval_batch_size)
        self.validated = trainer.step_count
        self._emit({"step": trainer.step_count, "valid_bits_per_byte": round(bits, 5)})
        if self.best is None or bits < self.best:
            self.best = bits
            if self.folder is not None:
                values = {"step": trainer.step_count, "valid_bits_per_byte": bits}
                save(trainer.model, self.folder / BEST, extra=values)

    def save_last(self) -> None:
        """Writes the checkpoint that `resume` reads."""
        if self.folder is None:
            return
        tensors, values = self.trainer.snapshot()
        extra = {
            "recipe": dataclasses.asdict(self.trainer.recipe),
            "fingerprint": self.trainer.corpus.fingerprint,
            "training": values,
            "run": {
                "best": self.best,
                "validated": self.validated,
                "window": dataclasses.asdict(self.window),
            },
        }
        save(self.trainer.model, self.folder / LAST, extra_tensors=tensors, extra=extra)

    def _emit(self, line: Metrics) -> None:
        self.metrics.append(line)
        if self.folder is not None:
            with open(self.folder / METRICS, "a") as file:
                file.write(json.dumps(line) + "\n")
        if self.events is not None:
            for name, value in line.items():
                if name != "step":
                    self.events.add_scalar(name, value, line["step"])
        if self.on_metrics is not None:
            self.on_metrics(line)

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """Opens TensorBoard's event file where one is wanted."""
        if not self.tensorboard or self.folder is None:
            yield
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("tensorboard is not installed: pip install tensorboard") from error
        self.events = SummaryWriter(str(self.folder))
        try:
            yield
        finally:
            self.events.close()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and termination instead of dying; a second Ctrl-C is obeyed at once."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopped.append(number)

    before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bar(progress: bool, trainer: Trainer) -> tqdm[Any]:
    """A bar over the share of the run that is done, in percent, with the time left."""
    return tqdm(
        total=100,
        initial=min(100.0, 100 * trainer.done),
        disable=not progress,
        file=sys.stderr,
        bar_format="{percentage:3.0f}% {bar:20} {elapsed}<{remaining}{postfix}",
        mininterval=0.5,
    )
