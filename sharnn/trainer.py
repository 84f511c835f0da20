"""One training step after another: streams, carried state, mixed precision, bad steps skipped."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.data import Corpus, Streams
from sharnn.errors import InputError
from sharnn.memory import State
from sharnn.model import SHARNN
from sharnn.optim import make_optimizer
from sharnn.recipe import Recipe

SHORTEST_SEGMENT = 5


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not a finite number."""


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Args:
        loss: mean nats per byte before the step.
        gradient_norm: global norm before clipping.
        lr: learning rate.
        size: bytes the step read.
        skipped: the step was dropped because its loss or gradient was not finite.
    """

    loss: float
    gradient_norm: float
    lr: float
    size: int
    skipped: bool


@dataclass(frozen=True)
class Position:
    """Where a run stands: all that its next step depends on beside weights and optimiser."""

    step: int
    epoch: int
    offset: int
    state: State | None
    random: dict[str, Tensor]


class Trainer:
    """Trains a model by a recipe, one segment a step.

    Where the training bytes end, all streams start over together, without a past.

    Args:
        model: the model; it is moved to the recipe's device.
        corpus: what it learns from.
        recipe: how.

    Raises:
        InputError: the device is missing here, or the corpus too short for the batch.

    Source: paper, training settings.
    """

    def __init__(self, model: SHARNN, corpus: Corpus, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = pick_device(recipe.device)
        self.dtype = pick_precision(recipe.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(self.device)
        self.corpus = corpus
        self.streams = Streams(corpus.train, recipe.batch_size)
        if self.streams.length < recipe.segment_length:
            raise InputError(
                f"{corpus.name} is too short: {len(corpus.train):,} bytes to train on make "
                f"{recipe.batch_size} streams of {self.streams.length}, less than one segment of "
                f"{recipe.segment_length}; lower batch_size or segment_length"
            )
        self.optimizer = make_optimizer(
            model,
            recipe.optimizer,
            recipe.lr,
            (recipe.beta1, recipe.beta2),
            recipe.eps,
            recipe.weight_decay,
            recipe.min_trust,
        )
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.dtype == torch.float16 and self.device.type == "cuda"
        )
        self.state: State | None = None
        self.step_count = 0
        self.epoch = 0
        self.offset = 0
        self.seconds = 0.0
        self.skipped = 0
        self.skipped_in_row = 0
        self.last_good = self.position()

    @property
    def epochs(self) -> float:
        """Passes over the training bytes, the current one's share included."""
        return self.epoch + self.offset / self.streams.length

    @property
    def done(self) -> float:
        """The share of the run that is done; 1 or more at its end."""
        return self.recipe.done(self.step_count, self.epochs, self.seconds)

    def step(self) -> StepResult:
        """Reads the next segment of every stream and moves the weights.

        Returns:
            What happened.

        Raises:
            NonFiniteError: this was one bad step in a row too many. Weights, optimiser and
                position are those of the last good step.
        """
        if not self.skipped_in_row:
            self.last_good = self.position()
        lr = self.recipe.learning_rate(self.step_count, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x, y = self._next_segment()  # (batch, time) both
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits, state = self.model(x, self.state)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())  # nats
        self.step_count += 1
        if not math.isfinite(loss.item()):
            # The state may be poisoned too: the streams go on without a past.
            self.state = None
            return self._skip(loss.item(), math.nan, lr, x.numel())
        self.state = state
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip).item()
        if not math.isfinite(norm):
            self.scaler.update()
            return self._skip(loss.item(), norm, lr, x.numel())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped_in_row = 0
        return StepResult(loss.item(), norm, lr, x.numel(), skipped=False)

    def _next_segment(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets (batch, time) of the next segment; starts over at the streams' end."""
        if self.streams.length - self.offset < min(SHORTEST_SEGMENT, self.recipe.segment_length):
            self.epoch, self.offset, self.state = self.epoch + 1, 0, None
        x, y = self.streams.segment(self.offset, self.recipe.segment(self.step_count))
        self.offset += x.shape[1]
        return x.to(self.device), y.to(self.device)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _skip(self, loss: float, norm: float, lr: float, size: int) -> StepResult:
        self.skipped += 1
        self.skipped_in_row += 1
        if self.skipped_in_row > self.recipe.max_skips:
            self.move_to(self.last_good)
            raise NonFiniteError(
                f"{self.skipped_in_row} steps in a row had a non-finite loss or gradient after "
                f"step {self.step_count}: try a lower lr, more warmup_steps or precision float32"
            )
        return StepResult(loss, norm, lr, size, skipped=True)

    def position(self) -> Position:
        """Where the run stands now."""
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return Position(self.step_count, self.epoch, self.offset, self.state, random)

    def move_to(self, position: Position) -> None:
        """Goes back to a position; weights and optimiser stay.

        Args:
            position: what `position` returned.
        """
        self.step_count, self.epoch, self.offset = position.step, position.epoch, position.offset
        self.state = position.state
        torch.set_rng_state(position.random["cpu"])
        if self.device.type == "cuda" and "cuda" in position.random:
            torch.cuda.set_rng_state(position.random["cuda"], self.device)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a resumed run needs beside the weights.

        Returns:
            Tensors by name, and values that JSON can hold.
        """
        here = self.position()
        tensors = {f"random.{name}": tensor for name, tensor in here.random.items()}
        if here.state is not None:
            for name, tensor in here.state.to_tensors().items():
                tensors[f"state.{name}"] = tensor
        optimizer = self.optimizer.state_dict()
        for index, values in optimizer["state"].items():
            for name, tensor in values.items():
                tensors[f"optimizer.{index}.{name}"] = tensor
        groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer["param_groups"]]
        return tensors, {
            "step": here.step,
            "epoch": here.epoch,
            "offset": here.offset,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "has_state": here.state is not None,
            "optimizer_groups": groups,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Takes up a run where `snapshot` left it. The model must hold that moment's weights.

        Args:
            tensors, values: what `snapshot` returned, after a round trip through a file.

        Raises:
            InputError: they belong to another model or batch size.
        """
        state = None
        if values["has_state"]:
            carried = {n.removeprefix("state."): t for n, t in tensors.items()}
            state = State.from_tensors(carried, self.model.config.layers)
            if state.batch_size != self.recipe.batch_size:
                raise InputError(
                    f"the run has {state.batch_size} streams: batch_size can't change on resuming"
                )
            state = state.map(lambda tensor: tensor.to(self.device))
        saved = self.optimizer.state_dict()
        saved["state"] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, field = rest.partition(".")
                saved["state"].setdefault(int(index), {})[field] = tensor
        self.optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(values["scaler"])
        self.seconds, self.skipped = values["seconds"], values["skipped"]
        random = {
            n.removeprefix("random."): t for n, t in tensors.items() if n.startswith("random.")
        }
        self.move_to(Position(values["step"], values["epoch"], values["offset"], state, random))


def pick_device(name: str) -> torch.device:
    """The device a recipe names.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Returns:
        The device.

    Raises:
        InputError: this machine, or this build of torch, doesn't have it.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not has[name]:
        raise InputError(f"device {name} is not available here: use device cpu or auto")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of activations and matrix products.

    cuDNN's fast persistent LSTM exists in float16 only; a CPU gains nothing from fewer bits.

    Args:
        name: ``"auto"`` or a dtype's name.
        device: where the model is.

    Returns:
        The dtype.

    Raises:
        InputError: float16 was asked for on a device without loss scaling.

    Example:
        >>> pick_precision("auto", torch.device("cpu"))
        torch.float32
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name == "float16" and device.type != "cuda":
        raise InputError(f"float16 trains on a cuda device only, not on {device.type}: use float32")
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def keep_freed_memory() -> None:
    """Asks the C library to keep freed memory for the next allocation (Linux with glibc).

    By default every large tensor is mapped afresh and its pages are cleared one by one on first
    touch, which cost 10 to 25 % of a training step on the CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4  # names of mallopt's settings in malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
