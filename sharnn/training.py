"""A training run: its folder, metrics, validation, checkpoints, progress bar and interruptions."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sharnn.checkpoint import BEST, LAST, TRAINING, build, read, save, write_atomically
from sharnn.config import ModelConfig
from sharnn.data import Corpus
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.model import SHARNN
from sharnn.ranks import Ranks, joined
from sharnn.recipe import Recipe
from sharnn.trainer import NonFiniteError, Trainer

METRICS, SETTINGS = "metrics.jsonl", "config.json"
DIFFERENT = "the training processes were given different data or settings"
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

    In a script that torchrun started, every process calls this with the same arguments, and they
    train one model together; only the first writes, shows progress and calls ``on_metrics``.

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
    with joined() as ranks:
        folder = Path(out) if out is not None else None
        ranks.require_same(f"{config} {recipe} {corpus.fingerprint}", DIFFERENT)
        ranks.first(lambda: _refuse_a_run(folder))
        torch.manual_seed(recipe.seed)
        trainer = ranks.agree(lambda: Trainer(SHARNN(config), corpus, recipe))
        run = _Run(trainer, folder, on_metrics, tensorboard)
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

    In a script that torchrun started, every process calls this, as in `train`; the first one reads
    the run. With another number of processes than before, one line on the standard error stream
    says what goes on differently.

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
    with joined() as ranks:
        ranks.require_same(f"{corpus.fingerprint} {changes}", DIFFERENT)
        trainer, header = _restored(ranks, folder, corpus, changes or {})
        run = _Run(trainer, folder, on_metrics, tensorboard)
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
    signals: list[int] = field(default_factory=list)  # those that this process has got
    told_to_stop: bool = False  # some process has got one, as all know since the last step

    @property
    def ranks(self) -> Ranks:
        return self.trainer.ranks

    def create(self, settings: dict[str, Any]) -> None:
        """Makes the run folder with the settings and a checkpoint of the untrained model."""
        self.ranks.first(lambda: self._make_folder(settings))
        self.save_last()

    def _make_folder(self, settings: dict[str, Any]) -> None:
        if self.folder is None:
            return
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
            "ranks": self.ranks.count,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **settings,
        }
        content = json.dumps(values, indent=2) + "\n"
        write_atomically(self.folder / SETTINGS, content.encode())
        write_atomically(self.folder / METRICS, b"")

    def take_up(self, values: dict[str, Any]) -> None:
        """Restores what the checkpoint kept of the run, and drops later lines of metrics."""
        self.best, self.validated = values["best"], values["validated"]
        self.window = _Window(**values["window"])
        self.ranks.first(self._drop_later_lines)

    def _drop_later_lines(self) -> None:
        assert self.folder is not None
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
        with _signals(self.ranks.count) as self.signals, self._writer(), self._bar(progress) as bar:
            try:
                while trainer.done < 1 and not self._stops:
                    self._step(bar)
                    if trainer.step_count % recipe.eval_every == 0:
                        self._validate()
                    if trainer.step_count % recipe.checkpoint_every == 0:
                        self.save_last()
                if self._stops:
                    reason, message = "interrupted", f"interrupted at step {trainer.step_count}"
                elif self.validated != trainer.step_count:
                    self._validate()
            except NonFiniteError as error:
                reason, message = "non-finite", str(error)
            finally:
                trainer.disconnect()
            self.save_last()
        if reason == "done":
            message = f"done after {trainer.step_count} steps"
        if self.best is not None:
            message += f"; best validation {self.best:.4f} bits per byte"
        if trainer.skipped:
            message += f"; {trainer.skipped} non-finite steps were skipped"
        return Result(trainer.model.eval(), self.metrics, reason, message, self.best)

    @property
    def _stops(self) -> bool:
        """Whether to end: alone as soon as a signal has come, together once all know of it."""
        return bool(self.signals) if self.ranks.count == 1 else self.told_to_stop

    def _step(self, bar: tqdm[Any]) -> None:
        """One step, and a line of metrics where one is due."""
        trainer, window = self.trainer, self.window
        result = trainer.step(self.signals)
        trainer.seconds += result.seconds
        self.told_to_stop = result.stop
        if not result.skipped:
            window.bits += result.loss / math.log(2) * result.size
            window.size += result.size
            window.norm = max(window.norm, result.gradient_norm)
        window.seconds += result.seconds
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
        bits = bits_per_byte(
            trainer.model, valid, batch_size=trainer.recipe.eval_batch_size, ranks=self.ranks
        )
        self.validated = trainer.step_count
        self._emit({"step": trainer.step_count, "valid_bits_per_byte": round(bits, 5)})
        if self.best is None or bits < self.best:
            self.best = bits
            values = {"step": trainer.step_count, "valid_bits_per_byte": bits}
            self._save(BEST, {}, values)

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
        self._save(LAST, tensors, extra)

    def _save(self, name: str, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Writes the model, in the first process; where that fails, the run fails in all."""
        folder, model = self.folder, self.trainer.model
        if folder is not None:
            self.ranks.first(lambda: save(model, folder / name, extra_tensors=tensors, extra=extra))

    def _emit(self, line: Metrics) -> None:
        self.metrics.append(line)
        if not self.ranks.is_first:
            return
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
        """Holds TensorBoard's event file open, in the first process, where one is wanted."""
        self.events = self.ranks.agree(self._open_events)
        try:
            yield
        finally:
            if self.events is not None:
                self.events.close()

    def _open_events(self) -> Any:
        if not self.tensorboard or self.folder is None or not self.ranks.is_first:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("tensorboard is not installed: pip install tensorboard") from error
        return SummaryWriter(str(self.folder))

    def _bar(self, progress: bool) -> tqdm[Any]:
        """A bar over the share of the run that is done, in percent, with the time left."""
        return tqdm(
            total=100,
            initial=min(100.0, 100 * self.trainer.done),
            disable=not progress or not self.ranks.is_first,
            file=sys.stderr,
            bar_format="{percentage:3.0f}% {bar:20} {elapsed}<{remaining}{postfix}",
            mininterval=0.5,
        )


@contextmanager
def _signals(count: int) -> Iterator[list[int]]:
    """Collects Ctrl-C and termination instead of dying; alone, a second Ctrl-C is obeyed at once.

    One of several processes may get a single Ctrl-C twice, from the terminal and from torchrun,
    which kills them all after 30 seconds anyway.
    """
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if stopped and number == signal.SIGINT and count == 1:
            raise KeyboardInterrupt
        stopped.append(number)

    before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
