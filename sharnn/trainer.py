"""Training steps: parallel streams, carried state, mixed precision, non-finite steps skipped."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.data import Corpus
from sharnn.device import pick_precision
from sharnn.distributed import current_group, local_device
from sharnn.errors import InputError
from sharnn.memory import State
from sharnn.model import SHARNN
from sharnn.optim import make_optimizer, state_shapes
from sharnn.recipe import SHORTEST_SEGMENT, Recipe
from sharnn.run_checks import check_tensors, random_name
from sharnn.streams import Streams


class NonFiniteError(RuntimeError):
    """Too many consecutive steps had a loss or gradient with NaN or Inf."""


class DivergedError(RuntimeError):
    """The model is lost: its weights, or its losses on validation bytes, contain NaN or Inf."""


@dataclass(frozen=True)
class StepResult:
    """The outcome of one step, over all processes.

    Args:
        loss: mean nats per byte before the step.
        gradient_norm: global norm before clipping.
        lr: learning rate.
        size: number of bytes read.
        seconds: duration of the step.
        skipped: the weights were not updated because the loss or the gradient was not finite.
        stop: some process received a signal to stop.
    """

    loss: float
    gradient_norm: float
    lr: float
    size: int
    seconds: float
    skipped: bool
    stop: bool


@dataclass(frozen=True)
class Position:
    """A position in a run: everything the next step needs besides weights and optimiser."""

    step: int
    epoch: int
    offset: int
    state: State | None
    random: dict[str, Tensor]


class Trainer:
    """Trains a model according to a recipe, one segment per step.

    At the end of the training bytes all streams start over together, with an empty state. The
    trainer measures its own training time, so that a recipe limited by minutes works in any
    training loop, not only in `sharnn.train`.

    Inside `sharnn.distributed.process_group`, each process trains its share of the streams, and
    all processes take each step together, with the same result as one process with all streams.
    The first step copies rank 0's weights to every process.

    Args:
        model: the model; it is moved to the recipe's device, in float32.
        corpus: the training data.
        recipe: the settings.

    Attributes:
        seconds: training time so far, over all sessions of the run.
        cpu_seconds: processor time of this process in those seconds.
        bytes_read: number of bytes read so far, by all processes.

    Raises:
        InputError: the device is not available, the corpus is too short for the batch, or the
            batch can't be divided among the processes.

    Source: paper, training settings.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> from sharnn.data import load_corpus
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=32, layers=1, attention_layers=()))
        >>> recipe = Recipe(steps=3, batch_size=2, segment_length=16, device="cpu")
        >>> trainer = Trainer(model, load_corpus("sample", sample_size=10_000), recipe)
        >>> while trainer.progress < 1:
        ...     result = trainer.step()
        >>> trainer.step_count, result.loss > 0
        (3, True)
    """

    def __init__(self, model: SHARNN, corpus: Corpus, recipe: Recipe) -> None:
        self.recipe = recipe
        self.group = current_group()
        self.device = local_device(recipe.device, self.group)
        self.dtype = pick_precision(recipe.precision, self.device)
        # Mixed precision needs float32 weights; torch.set_default_dtype may have made others.
        self.model = model.to(self.device, torch.float32)
        self.corpus = corpus
        self.streams = Streams(corpus.train, recipe.batch_size)
        if self.streams.length < recipe.segment_length:
            raise InputError(
                f"{corpus.name} is too short: {len(corpus.train):,} training bytes make "
                f"{recipe.batch_size} streams of {self.streams.length} bytes, less than one "
                f"segment of {recipe.segment_length}; lower batch_size or segment_length"
            )
        if recipe.batch_size % self.group.world_size:
            raise InputError(
                f"batch_size {recipe.batch_size} can't be divided among "
                f"{self.group.world_size} processes: it counts the streams of all processes and "
                "must be a multiple of their number"
            )
        self.shard = self.group.shard(recipe.batch_size)  # this process's streams
        self.optimizer = make_optimizer(model, recipe)
        # Also in bfloat16: under autocast torch computes cuDNN's LSTM in float16 in any case, where
        # small gradients would become 0.
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.dtype != torch.float32 and self.device.type == "cuda"
        )
        self.state: State | None = None
        self.step_count = 0
        self.epoch = 0
        self.offset = 0  # position in the streams
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.bytes_read = 0
        self.skipped = 0
        self.consecutive_skips = 0
        self._parallel: nn.Module | None = None
        self._stage: Literal["idle", "reading", "updating"] = "idle"  # of the current step
        if self.group.world_size > 1:
            self._seed_this_rank()
        self.last_good = self.position()

    @property
    def epochs(self) -> float:
        """Passes over the training bytes, with the fraction of the current one."""
        return self.epoch + self.offset / self.streams.length

    @property
    def progress(self) -> float:
        """Fraction of the run that is complete; 1 or more at its end."""
        seconds = self.cpu_seconds if self.recipe.clock == "cpu" else self.seconds
        return self.recipe.progress(self.step_count, self.epochs, seconds)

    def step(self, signals: Sequence[int] = ()) -> StepResult:
        """Reads the next segment of every stream and updates the weights.

        The whole step is queued on the device before the host reads a result. A step with a
        non-finite loss or gradient is cancelled on the device.

        Args:
            signals: signals received so far; if any process has one, all get `StepResult.stop`.

        Raises:
            NonFiniteError: one non-finite step too many in a row. Weights, optimiser and position
                are those of the last good step.
        """
        start = (time.perf_counter(), time.process_time())
        if not self.consecutive_skips:
            self.last_good = self.position()
        self._stage = "reading"
        lr = self.recipe.learning_rate(self.step_count, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x, y = self._next_segment()  # (batch, time) each
        self.model.train()
        predict = self._parallel_model()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits, state = predict(x, self.state)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())  # nats
        self.step_count += 1
        norm = self._backward_and_step(loss)
        mean_loss, norm_value, seconds, cpu_seconds, stop = self._reduce(loss, norm, start, signals)
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds
        # After a non-finite loss the state may be NaN too: the streams continue without it.
        self.state = state if math.isfinite(mean_loss) else None
        self._stage = "idle"
        skipped = not (math.isfinite(mean_loss) and math.isfinite(norm_value))
        self._count_skips(skipped)
        size = x.numel() * self.group.world_size
        self.bytes_read += size
        return StepResult(mean_loss, norm_value, lr, size, seconds, skipped, stop)

    def _next_segment(self) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets, (batch, time); starts over at the end of the streams."""
        if self.streams.length - self.offset < min(SHORTEST_SEGMENT, self.recipe.segment_length):
            self.epoch, self.offset, self.state = self.epoch + 1, 0, None
        length = self.recipe.segment_length_at(self.step_count)
        x, y = self.streams.segment(self.offset, length)
        self.offset += x.shape[1]
        x, y = x[self.shard], y[self.shard]
        if self.device.type == "cuda":
            # A copy from pinned memory is queued like everything else: the host doesn't wait. A
            # part of a larger tensor would first be copied to memory that is not pinned.
            x, y = x.contiguous().pin_memory(), y.contiguous().pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def validation_precision(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context manager for a validation: the recipe's precision on CUDA, or float32.

        On CUDA the recipe's precision is several times as fast (RUNS.md).
        """
        return self._autocast() if self.device.type == "cuda" else contextlib.nullcontext()

    def _backward_and_step(self, loss: Tensor) -> Tensor:
        """Computes the gradient, takes the optimiser's step and returns the gradient's norm.

        If the loss or the gradient is not finite in any process, neither is the norm, and weights
        and optimiser stay unchanged. The host doesn't wait for the result.
        """
        # The gradient is multiplied by 1, or by NaN after a loss that is not finite, so that one
        # bad loss makes the norm non-finite in every process.
        self.scaler.scale(loss).backward(1 + 0 * loss.detach())
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        # GradScaler.step checks each gradient but not the norm, which can overflow by itself.
        self.optimizer.found_inf = 1 - torch.isfinite(norm).float()  # type: ignore[attr-defined]
        self._stage = "updating"
        self.optimizer.step()
        self.optimizer.found_inf = None  # type: ignore[attr-defined]
        self.scaler.update()
        return norm

    def _reduce(
        self, loss: Tensor, norm: Tensor, start: tuple[float, float], signals: Sequence[int]
    ) -> tuple[float, float, float, float, bool]:
        """Returns mean loss, norm, rank 0's times since ``start``, and True if any must stop."""
        own_loss, norm_value = torch.stack([loss.detach(), norm]).tolist()  # waits for the device
        times = [0.0, 0.0]
        if self.group.is_rank0:
            times = [time.perf_counter() - start[0], time.process_time() - start[1]]
        losses, seconds, cpu_seconds, stops = self.group.all_reduce(
            [own_loss, *times, float(bool(signals))]
        )
        return losses / self.group.world_size, norm_value, seconds, cpu_seconds, stops > 0

    def _count_skips(self, skipped: bool) -> None:
        """Counts skipped steps, and ends the run if there are too many in a row."""
        if not skipped:
            self.consecutive_skips = 0
            return
        self.skipped += 1
        self.consecutive_skips += 1
        if self.consecutive_skips > self.recipe.max_skips:
            self.restore_position(self.last_good)
            raise NonFiniteError(
                f"{self.consecutive_skips} consecutive steps had a non-finite loss or gradient "
                f"after step {self.step_count}: try a lower lr, more warmup_steps or precision "
                "float32"
            )

    def rewind(self) -> bool:
        """Goes back to the start of a step that an exception ended early.

        Returns:
            False if the optimiser may have updated some of the weights, so that the trainer can't
            be saved; True otherwise, also if no step was ended early.
        """
        if self._stage == "reading":
            self.restore_position(self.last_good)
            self._stage = "idle"
        return self._stage == "idle"

    def require_finite_weights(self) -> None:
        """Raises an error if a weight is NaN or Inf.

        Raises:
            DivergedError: the model is lost.
        """
        finite = [torch.isfinite(weight).all() for weight in self.model.parameters()]
        if not torch.stack(finite).all():
            raise DivergedError(
                f"the weights after step {self.step_count} contain NaN or Inf: try a lower lr or "
                "more warmup_steps"
            )

    def _parallel_model(self) -> nn.Module:
        """Returns the model, wrapped to average gradients if there are several processes."""
        if self.group.world_size == 1:
            return self.model
        if self._parallel is None:
            position = self.position()
            parallel = nn.parallel.DistributedDataParallel(self.model)
            # After its first backward pass, DDP regroups the gradients into other buckets, whose
            # sums round differently with three processes or more. This pass makes it do so before
            # the first step, so that all steps of a run, resumed or not, round alike.
            zeros = torch.zeros(self.shard.stop - self.shard.start, 2, dtype=torch.int64)
            with self._autocast():
                parallel(zeros.to(self.device))[0].sum().backward()
            self.restore_position(position)
            self._parallel = parallel
        return self._parallel

    def disconnect(self) -> None:
        """Releases the model wrapper that averages gradients; the next step makes a new one.

        Call it before the process group is destroyed: torch may hang if the wrapper outlives it.
        """
        self._parallel = None

    def _seed_this_rank(self) -> None:
        """Seeds this process's random numbers differently from every other's."""
        numbers = np.random.SeedSequence([self.recipe.seed, self.step_count, self.group.rank])
        torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0]))

    def position(self) -> Position:
        """Returns the current position, for `restore_position`."""
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return Position(self.step_count, self.epoch, self.offset, self.state, random)

    def restore_position(self, position: Position) -> None:
        """Goes back to a position; weights, optimiser and training time stay as they are."""
        self.step_count, self.epoch, self.offset = position.step, position.epoch, position.offset
        self.state = position.state
        torch.set_rng_state(position.random["cpu"])
        if self.device.type == "cuda" and "cuda" in position.random:
            torch.cuda.set_rng_state(position.random["cuda"], self.device)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Returns everything that a resumed run needs besides the weights.

        With several processes this is a collective operation. Rank 0 gets the state of all streams
        and the random state of all processes.

        Returns:
            Tensors by name, and values that JSON can represent.
        """
        here = self.position()
        tensors = {}
        for kind, own in here.random.items():
            for rank, random in enumerate(self.group.gather(own)):
                tensors[random_name(kind, rank)] = random
        if here.state is not None:
            for name, share in here.state.to_tensors().items():
                shares = self.group.gather(share)  # (batch, ...) each
                if shares:
                    tensors[f"state.{name}"] = shares[0] if len(shares) == 1 else torch.cat(shares)
        optimizer = self.optimizer.state_dict()
        for index, values in optimizer["state"].items():
            for name, tensor in values.items():
                tensors[f"optimizer.{index}.{name}"] = tensor
        return tensors, self.snapshot_values()

    def snapshot_values(self) -> dict[str, Any]:
        """Returns the part of a snapshot that JSON can represent."""
        return {
            "step": self.step_count,
            "epoch": self.epoch,
            "offset": self.offset,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "bytes_read": self.bytes_read,
            "skipped": self.skipped,
            "has_state": self.state is not None,
            "world_size": self.group.world_size,
            "device": self.device.type,
            "precision": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restores what `snapshot` returned.

        The model must already have the weights that were saved with that snapshot. If the number
        of processes has changed, each gets its new share of the streams, and random numbers differ
        from those of an uninterrupted run. They also differ on a GPU if the run was on the CPU.

        Args:
            tensors, values: from `snapshot`, after a round trip through a file. The values have
                been checked with `sharnn.run_checks.check_header`.

        Raises:
            InputError: they are damaged, or belong to another model, batch size or optimiser.
        """
        check_tensors(
            tensors,
            values,
            self.model.config,
            self.recipe.batch_size,
            state_shapes(self.optimizer),
        )
        state = None
        if values["has_state"]:
            carried = {n.removeprefix("state."): t for n, t in tensors.items()}
            state = State.from_tensors(carried, self.model.config.layers)
            # Clone: a different memory alignment can change rounding.
            state = state.map(lambda tensor: tensor[self.shard].clone().to(self.device))
        saved = self.optimizer.state_dict()
        saved["state"] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, field = rest.partition(".")
                saved["state"].setdefault(int(index), {})[field] = tensor
        self.optimizer.load_state_dict(saved)
        self._restore_scaler(values["scaler"])
        self.seconds, self.cpu_seconds = values["seconds"], values["cpu_seconds"]
        self.bytes_read, self.skipped = values["bytes_read"], values["skipped"]
        same_size = values["world_size"] == self.group.world_size
        rank = self.group.rank if same_size else 0
        names = {kind: random_name(kind, rank) for kind in ("cpu", "cuda")}
        random = {kind: tensors[name] for kind, name in names.items() if name in tensors}
        new_gpu = self.device.type == "cuda" and "cuda" not in random
        try:
            self.restore_position(
                Position(values["step"], values["epoch"], values["offset"], state, random)
            )
        except RuntimeError as error:
            raise InputError("a random state is invalid") from error
        if new_gpu or (self.group.world_size > 1 and not same_size):
            self._seed_this_rank()

    def _restore_scaler(self, saved: dict[str, Any]) -> None:
        """Restores the loss scale, unless the run had none: the first steps then find one."""
        expected = self.scaler.state_dict().keys()
        if expected and saved:
            if saved.keys() != expected:
                raise InputError("the state of the loss scaling is invalid")
            self.scaler.load_state_dict(saved)
