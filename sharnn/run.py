"""The training loop: run folder, metrics, validation, checkpoints, progress, signals."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from sharnn.checkpoint import BEST, LAST, save
from sharnn.distributed import ProcessGroup
from sharnn.errors import DamagedModelError, InputError
from sharnn.evaluate import bits_per_byte
from sharnn.io.console import Progress, notify
from sharnn.io.files import read_file, write_atomically
from sharnn.model import SHARNN
from sharnn.optional import import_optional
from sharnn.run_checks import kept_metrics
from sharnn.trainer import DivergedError, NonFiniteError, StepResult, Trainer

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
    on_validation: Callable[[Trainer], Metrics] | None = None
    best: float | None = None
    sums: RunningSums = field(default_factory=RunningSums)
    metrics: list[Metrics] = field(default_factory=list)
    validated: int = -1  # step of the last validation
    events: Any = None  # TensorBoard's writer
    signals: list[int] = field(default_factory=list)  # received by this process
    stop: bool = False  # some process received a signal; set in all processes after the same step
    failure: Exception | None = None  # of the log or the progress bar in this process
    saved: int = -1  # step of the last checkpoint
    progress: Progress | None = None

    @property
    def group(self) -> ProcessGroup:
        """The processes that train together."""
        return self.trainer.group

    def create(self, settings: dict[str, Any]) -> None:
        """Writes a checkpoint of the untrained model, and the settings, to the run folder.

        The checkpoint is first: without it a folder could be neither resumed nor used again.
        """
        self.save_last()
        with self.group.shared_errors():
            if self.folder is not None and self.group.is_rank0:
                self._write_settings(self.folder, settings)

    def _write_settings(self, folder: Path, settings: dict[str, Any]) -> None:
        trainer = self.trainer
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
        self.saved = self.trainer.step_count
        with self.group.shared_errors():
            if self.folder is not None and self.group.is_rank0:
                self._remove_later_metrics(self.folder / METRICS)

    def _remove_later_metrics(self, path: Path) -> None:
        content = read_file(path) if path.exists() else b""
        kept, damaged = kept_metrics(content, self.trainer.step_count, self.validated)
        if damaged:
            notify(f"{path}: damaged lines were removed, {damaged} in all")
        write_atomically(path, "".join(line + "\n" for line in kept).encode())

    def loop(self, progress_bar: bool) -> Result:
        """Trains until the run is complete or interrupted.

        If the training fails, or the log or the progress bar can't be written, the run is saved
        before the exception is raised; a note of the exception names the saved step. Only a second
        Ctrl-C ends the run at once.
        """
        trainer = self.trainer
        with (
            _signals(self.group.world_size) as self.signals,
            self._event_writer(),
            self._open_progress(progress_bar) as self.progress,
        ):
            try:
                reason, message = self._train_and_save()
                if self.failure is not None:
                    raise self.failure
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._rescue(error)
                raise
            finally:
                trainer.disconnect()
        if self.best is not None:
            message += f"; best validation {self.best:.4f} bits per byte"
        if trainer.skipped:
            message += f"; {trainer.skipped} non-finite steps were skipped"
        return Result(trainer.model.eval(), self.metrics, reason, message, self.best)

    def _train_and_save(self) -> tuple[str, str]:
        """Trains, saves, and returns the reason of the end and a message."""
        try:
            reason, message = self._train()
            self.save_last()
        except DivergedError as error:
            # The last checkpoint is worth more than this model.
            kept = f"; the checkpoint of step {self.saved} is kept" if self.folder else ""
            return "non-finite", f"{error}{kept}"
        return reason, message

    def _train(self) -> tuple[str, str]:
        trainer, recipe = self.trainer, self.trainer.recipe
        try:
            while trainer.progress < 1 and not self._stopped:
                self._step()
                if trainer.step_count % recipe.eval_every == 0:
                    self._validate()
                if trainer.step_count % recipe.checkpoint_every == 0:
                    self.save_last()
            if self._stopped:
                return "interrupted", f"interrupted at step {trainer.step_count}"
            if self.validated != trainer.step_count:
                self._validate()
        except NonFiniteError as error:
            return "non-finite", str(error)
        return "done", f"done after {trainer.step_count} steps"

    def _rescue(self, error: BaseException) -> None:
        """Saves the run before an exception ends it, and adds the saved step to the exception.

        Several processes can't save together if only one of them has failed.
        """
        if self.folder is None or not self.group.is_rank0:
            return
        intact = self.group.world_size == 1 and self.trainer.rewind()
        if intact and self.saved != self.trainer.step_count:
            with suppress(Exception):  # the first error is the one to report
                self.save_last()
        error.add_note(f"{self.folder} has a checkpoint of step {self.saved}")

    @property
    def _stopped(self) -> bool:
        """True if the run must stop; several processes stop after the same step."""
        if self.group.world_size > 1:
            return self.stop
        return bool(self.signals) or self.failure is not None

    @contextmanager
    def _delayed_errors(self) -> Iterator[None]:
        """Context manager: an error in the block ends the run after this step, not at once.

        Only rank 0 executes the block. The others must end at the same step, so that all can save.
        """
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            self.progress = None

    def _step(self) -> None:
        """Takes one step, and writes a line of metrics if one is due."""
        trainer = self.trainer
        result = trainer.step(self.signals if self.failure is None else [0])
        self.stop = result.stop
        self.sums.add(result)
        text = None
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
            text = (
                f"step {line['step']}, {line['train_bits_per_byte']:.3f} bits per byte, "
                f"{line['bytes_per_second'] / 1000:.1f} kB/s"
                + (f", {trainer.skipped} skipped" if trainer.skipped else "")
            )
        if self.progress is not None:
            with self._delayed_errors():
                self.progress.update(min(100.0, 100 * trainer.progress), text)

    def _validate(self) -> None:
        """Scores the validation bytes, and saves the model if it is the best so far.

        Raises:
            DivergedError: a weight or the loss is not finite.
        """
        trainer = self.trainer
        trainer.require_finite_weights()
        valid = trainer.corpus.valid
        if trainer.recipe.eval_bytes is not None:
            valid = valid[: max(2, trainer.recipe.eval_bytes)]
        line: Metrics = {"step": trainer.step_count}
        try:
            bits = self._score(valid)
            line["valid_bits_per_byte"] = round(bits, 5)
            if self.on_validation is not None:
                with self.group.shared_errors():
                    line |= self.on_validation(trainer)
        except DamagedModelError as error:
            raise DivergedError(
                f"the validation loss after step {trainer.step_count} is not finite: try a lower "
                "lr or more warmup_steps"
            ) from error
        self.validated = trainer.step_count
        self._emit(line)
        if self.best is None or bits < self.best:
            self.best = bits
            values = {"step": trainer.step_count, "valid_bits_per_byte": bits}
            self._save(BEST, {}, values)

    def _score(self, valid: Any) -> float:
        """Returns the bits per byte of validation bytes.

        Raises:
            DamagedModelError: the loss is not finite.
        """
        trainer = self.trainer
        score = partial(
            bits_per_byte,
            trainer.model,
            valid,
            batch_size=trainer.recipe.eval_batch_size,
            group=self.group,
        )
        is_reduced = False
        try:
            with trainer.validation_precision():
                is_reduced = torch.is_autocast_enabled(trainer.device.type)
                return score()
        except DamagedModelError:
            if not is_reduced:
                raise
            return score()  # an overflow of float16 is no reason to end a run

    def save_last(self) -> None:
        """Writes the checkpoint that `resume` reads.

        Raises:
            DivergedError: a weight is not finite; the last checkpoint stays.
        """
        self.trainer.require_finite_weights()
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
        self.saved = self.trainer.step_count
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
        if self.group.is_rank0:
            with self._delayed_errors():
                self._log(line)

    def _log(self, line: Metrics) -> None:
        if self.folder is not None:
            try:
                with open(self.folder / METRICS, "a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise InputError(
                    f"can't write {self.folder / METRICS}: {error.strerror or error}"
                ) from error
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
        import_optional("tensorboard", "event files")
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder))

    def _open_progress(self, shown: bool) -> AbstractContextManager[Progress | None]:
        """Opens the progress bar, in rank 0 and if it is shown."""
        if not shown or not self.group.is_rank0:
            return nullcontext()
        return Progress(100, min(100.0, 100 * self.trainer.progress))


@contextmanager
def _signals(world_size: int) -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP instead of exiting, and yields those received.

    SIGHUP, which a closed terminal sends, stays ignored in a program started with nohup.

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

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # Windows has none
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
