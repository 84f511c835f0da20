"""Everything around a trainer: its folder, metrics, validation, checkpoints, bar and signals."""

from __future__ import annotations

import dataclasses
import json
import math
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

from sharnn.checkpoint import BEST, LAST, save, write_atomically
from sharnn.distributed import Ranks
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.model import SHARNN
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


@dataclass
class Window:
    """Sums since the last line of metrics; a checkpoint keeps them, so that lines stay the same."""

    bits: float = 0.0
    size: int = 0
    seconds: float = 0.0
    norm: float = 0.0


@dataclass
class Run:
    """A trainer and everything around it."""

    trainer: Trainer
    folder: Path | None
    on_metrics: Callable[[Metrics], None] | None
    tensorboard: bool
    on_checkpoint: Callable[[], None] | None = None
    best: float | None = None
    window: Window = field(default_factory=Window)
    metrics: list[Metrics] = field(default_factory=list)
    validated: int = -1  # the step of the last validation
    events: Any = None  # TensorBoard's writer
    signals: list[int] = field(default_factory=list)  # those that this process has got
    told_to_stop: bool = False  # some process has got one, as all know since the last step

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
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
        self.window = Window(**values["window"])
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
            self.window = Window()
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
        if self.on_checkpoint is not None:
            self.ranks.first(self.on_checkpoint)

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
