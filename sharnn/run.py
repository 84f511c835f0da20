"""The training loop: run folder, metrics, validation, checkpoints, progress bar, signals."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sharnn.checkpoint import BEST, LAST, save, write_atomically
from sharnn.distributed import ProcessGroup
from sharnn.errors import InputError
from sharnn.evaluate import bits_per_byte
from sharnn.model import SHARNN
from sharnn.trainer import NonFiniteError, StepResult, Trainer

if TYPE_CHECKING:
    from tqdm import tqdm

METRICS, SETTINGS = "metrics.jsonl", "config.json"
Metrics = dict[str, Any]


@dataclass
class Result:
    """The outcome of a run.

    Args:
        model: the trained model, in evaluation mode.
        metrics: the lines of ``metrics.jsonl`` written since the run was started or last
            resumed, as dictionaries.
        reason: why the run ended: ``"done"``, ``"interrupted"`` or ``"non-finite"``.
        message: one line for people.
        best: lowest validation loss in bits per byte; None if nothing was validated.
    """

    model: SHARNN
    metrics: list[Metrics]
    reason: str
    message: str
    best: float | None


@dataclass
class RunningSums:
    """Sums since the last line of metrics. A checkpoint keeps them for the run's next line."""

    bits: float = 0.0
    size: int = 0
    seconds: float = 0.0
    norm: float = 0.0

    def add(self, result: StepResult) -> None:
        """Adds one step; a skipped step only adds its time."""
        self.seconds += result.seconds
        if not result.skipped:
            self.bits += result.loss / math.log(2) * result.size
            self.size += result.size
            self.norm = max(self.norm, result.gradient_norm)


@dataclass
class Run:
    """A trainer, its run folder, and everything that happens between steps."""

    trainer: Trainer
    folder: Path | None
    on_metrics: Callable[[Metrics], None] | None
    tensorboard: bool
    on_checkpoint: Callable[[], None] | None = None
    best: float | None = None
    sums: RunningSums = field(default_factory=RunningSums)
    metrics: list[Metrics] = field(default_factory=list)
    validated: int = -1  # step of the last validation
    events: Any = None  # TensorBoard's writer
    signals: list[int] = field(default_factory=list)  # received by this process
    stop: bool = False  # some process received a signal; set in all processes after the same step

    @property
    def group(self) -> ProcessGroup:
        """The processes that train together."""
        return self.trainer.group

    def create(self, settings: dict[str, Any]) -> None:
        """Creates the run folder with the settings and a checkpoint of the untrained model."""
        with self.group.shared_errors():
            if self.folder is not None and self.group.is_rank0:
                self._create_folder(self.folder, settings)
        self.save_last()

    def _create_folder(self, folder: Path, settings: dict[str, Any]) -> None:
        trainer = self.trainer
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"can't create {folder}: {error.strerror or error}") from error
        values = {
            "model": trainer.model.config.to_dict(),
            "parameters": trainer.model.parameter_count(),
            "recipe": dataclasses.asdict(trainer.recipe),
            "corpus": trainer.corpus.name,
            "device": str(trainer.device),
            "precision": str(trainer.dtype).removeprefix("torch."),
            "world_size": self.group.world_size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **settings,
        }
        write_atomically(folder / SETTINGS, (json.dumps(values, indent=2) + "\n").encode())
        write_atomically(folder / METRICS, b"")

    def restore(self, values: dict[str, Any]) -> None:
        """Restores the run's part of a checkpoint, and removes later lines of metrics."""
        self.best, self.validated = values["best"], values["validated"]
        self.sums = RunningSums(**values["sums"])
        with self.group.shared_errors():
            if self.folder is not None and self.group.is_rank0:
                self._remove_later_metrics(self.folder / METRICS)

    def _remove_later_metrics(self, path: Path) -> None:
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

    def loop(self, progress_bar: bool) -> Result:
        """Trains until the run is complete or interrupted."""
        trainer, recipe = self.trainer, self.trainer.recipe
        reason, message = "done", ""
        with (
            _signals(self.group.world_size) as self.signals,
            self._event_writer(),
            self._bar(progress_bar) as bar,
        ):
            try:
                while trainer.progress < 1 and not self._stopped:
                    self._step(bar)
                    if trainer.step_count % recipe.eval_every == 0:
                        self._validate()
                    if trainer.step_count % recipe.checkpoint_every == 0:
                        self.save_last()
                if self._stopped:
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
    def _stopped(self) -> bool:
        """True if the run must stop; several processes stop after the same step."""
        return bool(self.signals) if self.group.world_size == 1 else self.stop

    def _step(self, bar: tqdm[Any] | None) -> None:
        """Takes one step, and writes a line of metrics if one is due."""
        trainer = self.trainer
        result = trainer.step(self.signals)
        self.stop = result.stop
        self.sums.add(result)
        if trainer.step_count % trainer.recipe.log_every == 0 and self.sums.size:
            line: Metrics = {
                "step": trainer.step_count,
                "epoch": round(trainer.epochs, 4),
                "bytes": self.sums.size,
                "seconds": round(trainer.seconds, 3),
                "train_bits_per_byte": round(self.sums.bits / self.sums.size, 5),
                "lr": result.lr,
                "largest_gradient_norm": round(self.sums.norm, 4),
                "bytes_per_second": round(self.sums.size / self.sums.seconds),
                "skipped": trainer.skipped,
            }
            self.sums = RunningSums()
            self._emit(line)
            if bar is not None:
                bar.set_postfix_str(
                    f"step {line['step']}, {line['train_bits_per_byte']:.3f} bits per byte, "
                    f"{line['bytes_per_second'] / 1000:.1f} kB/s"
                    + (f", {trainer.skipped} skipped" if trainer.skipped else "")
                )
        if bar is not None:
            bar.update(min(100.0, 100 * trainer.progress) - bar.n)

    def _validate(self) -> None:
        """Scores the validation bytes, and saves the model if it is the best so far."""
        trainer = self.trainer
        valid = trainer.corpus.valid
        if trainer.recipe.eval_bytes is not None:
            valid = valid[: max(2, trainer.recipe.eval_bytes)]
        bits = bits_per_byte(
            trainer.model, valid, batch_size=trainer.recipe.eval_batch_size, group=self.group
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
                "sums": dataclasses.asdict(self.sums),
            },
        }
        self._save(LAST, tensors, extra)
        if self.on_checkpoint is not None:
            with self.group.shared_errors():
                if self.group.is_rank0:
                    self.on_checkpoint()

    def _save(self, name: str, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Writes the model in rank 0; if that fails, the run fails in all processes."""
        with self.group.shared_errors():
            if self.folder is not None and self.group.is_rank0:
                save(self.trainer.model, self.folder / name, extra_tensors=tensors, extra=extra)

    def _emit(self, line: Metrics) -> None:
        self.metrics.append(line)
        if not self.group.is_rank0:
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
    def _event_writer(self) -> Iterator[None]:
        """Keeps TensorBoard's event file open in rank 0, if one is requested."""
        with self.group.shared_errors():
            self.events = self._open_events()
        try:
            yield
        finally:
            if self.events is not None:
                self.events.close()

    def _open_events(self) -> Any:
        if not self.tensorboard or self.folder is None or not self.group.is_rank0:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("tensorboard is not installed: pip install tensorboard") from error
        return SummaryWriter(str(self.folder))

    def _bar(self, shown: bool) -> AbstractContextManager[tqdm[Any] | None]:
        """Returns a progress bar, or None if it is not shown or this is not rank 0."""
        if not shown or not self.group.is_rank0:
            return nullcontext()
        from tqdm import tqdm

        return tqdm(
            total=100,
            initial=min(100.0, 100 * self.trainer.progress),
            file=sys.stderr,
            bar_format="{percentage:3.0f}% {bar:20} {elapsed}<{remaining}{postfix}",
            mininterval=0.5,
        )


@contextmanager
def _signals(world_size: int) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of exiting, and yields the list of those received.

    In a single process a second Ctrl-C exits at once. With several processes it is ignored, since
    one press can arrive twice, from the terminal and from torchrun, which kills all processes
    after 30 seconds.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT and world_size == 1:
            raise KeyboardInterrupt
        received.append(number)

    before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
