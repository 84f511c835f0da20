"""One training step after another: streams, carried state, mixed precision, bad steps skipped."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharnn.data import Corpus, Streams
from sharnn.device import keep_freed_memory, own_device, pick_precision
from sharnn.distributed import current
from sharnn.errors import InputError
from sharnn.memory import State
from sharnn.model import SHARNN
from sharnn.optim.factory import make_optimizer
from sharnn.recipe import Recipe

SHORTEST_SEGMENT = 5


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not a finite number."""


@dataclass(frozen=True)
class StepResult:
    """What one step did, in all processes together.

    Args:
        loss: mean nats per byte before the step.
        gradient_norm: global norm before clipping.
        lr: learning rate.
        size: bytes the step read.
        seconds: how long it took.
        skipped: the step was dropped because its loss or gradient was not finite.
        stop: some process was told to stop.
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
    """Where a run stands: all that its next step depends on beside weights and optimiser."""

    step: int
    epoch: int
    offset: int
    state: State | None
    random: dict[str, Tensor]


class Trainer:
    """Trains a model by a recipe, one segment a step.

    Where the training bytes end, all streams start over together, without a past.

    Inside `sharnn.distributed.joined` each process trains its share of the streams and all
    processes take each step together, as one process with all the streams would. Their first step
    gives every process the first one's weights.

    Args:
        model: the model; it is moved to the recipe's device.
        corpus: what it learns from.
        recipe: how.

    Raises:
        InputError: the device is missing here, the corpus too short for the batch, or the batch
            can't be dealt to the processes.

    Source: paper, training settings.
    """

    def __init__(self, model: SHARNN, corpus: Corpus, recipe: Recipe) -> None:
        self.recipe = recipe
        self.ranks = current()
        self.device = own_device(recipe.device, self.ranks)
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
        if recipe.batch_size % self.ranks.count:
            raise InputError(
                f"batch_size {recipe.batch_size} can't be dealt to {self.ranks.count} processes: "
                "it counts the streams of all together and must be a multiple of their number"
            )
        self.rows = self.ranks.share(recipe.batch_size)  # this process's streams
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
        self._parallel: nn.Module | None = None
        if self.ranks.count > 1:
            self._draw_apart()
        self.last_good = self.position()

    @property
    def epochs(self) -> float:
        """Passes over the training bytes, the current one's share included."""
        return self.epoch + self.offset / self.streams.length

    @property
    def done(self) -> float:
        """The share of the run that is done; 1 or more at its end."""
        return self.recipe.done(self.step_count, self.epochs, self.seconds)

    def step(self, stopped: Sequence[int] = ()) -> StepResult:
        """Reads the next segment of every stream and moves the weights.

        The whole step is handed to the device before anything is read back from it: a bad step is
        called off there.

        Args:
            stopped: something in it, when the step ends, tells all processes to stop.

        Returns:
            What happened.

        Raises:
            NonFiniteError: this was one bad step in a row too many. Weights, optimiser and
                position are those of the last good step.
        """
        start = time.perf_counter()
        if not self.skipped_in_row:
            self.last_good = self.position()
        lr = self.recipe.learning_rate(self.step_count, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x, y = self._next_segment()  # (batch, time) both
        self.model.train()
        predict = self._connected()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits, state = predict(x, self.state)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())  # nats
        self.step_count += 1
        norm = self._move(loss)
        mean_loss, norm_value, seconds, stop = self._settle(loss, norm, start, stopped)
        # After a bad loss the state may be poisoned too: the streams go on without a past.
        self.state = state if math.isfinite(mean_loss) else None
        skipped = not (math.isfinite(mean_loss) and math.isfinite(norm_value))
        self._count(skipped)
        size = x.numel() * self.ranks.count
        return StepResult(mean_loss, norm_value, lr, size, seconds, skipped, stop)

    def _next_segment(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets (batch, time) of the next segment; starts over at the streams' end."""
        if self.streams.length - self.offset < min(SHORTEST_SEGMENT, self.recipe.segment_length):
            self.epoch, self.offset, self.state = self.epoch + 1, 0, None
        x, y = self.streams.segment(self.offset, self.recipe.segment(self.step_count))
        self.offset += x.shape[1]
        x, y = x[self.rows], y[self.rows]
        if self.device.type == "cuda":
            # From pinned memory a copy is queued like everything else: the host doesn't wait.
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _move(self, loss: Tensor) -> Tensor:
        """Moves the weights down the loss's gradient, and returns the gradient's norm.

        Where loss or gradient is not finite, in whatever process, the norm is not either, and
        weights and optimiser stay as they are. The host doesn't wait to know.
        """
        # The gradient is multiplied by 1, or by NaN after a loss that is not finite.
        self.scaler.scale(loss).backward(1 + 0 * loss.detach())
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        # GradScaler.step would look at each gradient, but not at the norm: it can overflow alone.
        self.optimizer.found_inf = 1 - torch.isfinite(norm).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.found_inf = None  # type: ignore[attr-defined]
        self.scaler.update()
        return norm

    def _settle(
        self, loss: Tensor, norm: Tensor, start: float, stopped: Sequence[int]
    ) -> tuple[float, float, float, bool]:
        """The mean loss, the norm, the first process's seconds, and whether any is to stop."""
        own_loss, norm_value = torch.stack([loss.detach(), norm]).tolist()  # waits for the device
        seconds = time.perf_counter() - start if self.ranks.is_first else 0.0
        losses, seconds, stops = self.ranks.sums([own_loss, seconds, float(bool(stopped))])
        return losses / self.ranks.count, norm_value, seconds, stops > 0

    def _count(self, skipped: bool) -> None:
        """Counts bad steps, and ends the run where they are too many in a row."""
        if not skipped:
            self.skipped_in_row = 0
            return
        self.skipped += 1
        self.skipped_in_row += 1
        if self.skipped_in_row > self.recipe.max_skips:
            self.move_to(self.last_good)
            raise NonFiniteError(
                f"{self.skipped_in_row} steps in a row had a non-finite loss or gradient after "
                f"step {self.step_count}: try a lower lr, more warmup_steps or precision float32"
            )

    def _connected(self) -> nn.Module:
        """What a step calls: the model, or one around it that averages gradients over processes."""
        if self.ranks.count == 1:
            return self.model
        if self._parallel is None:
            here = self.position()
            parallel = nn.parallel.DistributedDataParallel(self.model)
            # After its first backward pass it sorts the gradients into other buckets, whose sums
            # round otherwise in three processes or more. It does so here: the first step of a run,
            # and of a resumed one, is like all others.
            nothing = torch.zeros(self.rows.stop - self.rows.start, 2, dtype=torch.int64)
            with self._autocast():
                parallel(nothing.to(self.device))[0].sum().backward()
            self.move_to(here)
            self._parallel = parallel
        return self._parallel

    def disconnect(self) -> None:
        """Lets go of the other processes; the next step would find them again.

        Do it before the process group is left. Torch may hang where the group outlives its end in
        a model that averages gradients.
        """
        self._parallel = None

    def _draw_apart(self) -> None:
        """Gives this process random numbers that no other has."""
        numbers = np.random.SeedSequence([self.recipe.seed, self.step_count, self.ranks.rank])
        torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0]))

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
        """All that a resumed run needs beside the weights; every process must ask for it.

        Returns:
            Tensors by name, and values that JSON can hold. The first process has the state of all
            streams and the random numbers of all processes.
        """
        here = self.position()
        tensors = {}
        for kind, own in here.random.items():
            for rank, random in enumerate(self.ranks.gather(own)):
                tensors[_random_name(kind, rank)] = random
        if here.state is not None:
            for name, share in here.state.to_tensors().items():
                shares = self.ranks.gather(share)  # (batch, ...) each
                if shares:
                    tensors[f"state.{name}"] = shares[0] if len(shares) == 1 else torch.cat(shares)
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
            "ranks": self.ranks.count,
            "optimizer_groups": groups,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Takes up a run where `snapshot` left it. The model must hold that moment's weights.

        With another number of processes than before each takes its new share of the streams, and
        random numbers go on differently.

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
            # A clone lies, and rounds, like the tensor that was saved.
            state = state.map(lambda tensor: tensor[self.rows].clone().to(self.device))
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
        as_before = values.get("ranks", 1) == self.ranks.count
        rank = self.ranks.rank if as_before else 0
        names = {kind: _random_name(kind, rank) for kind in ("cpu", "cuda")}
        random = {kind: tensors[name] for kind, name in names.items() if name in tensors}
        self.move_to(Position(values["step"], values["epoch"], values["offset"], state, random))
        if self.ranks.count > 1 and not as_before:
            self._draw_apart()


def _random_name(kind: str, rank: int) -> str:
    """The name of a process's random numbers in a checkpoint; the first one's is short."""
    return f"random.{kind}.{rank}" if rank else f"random.{kind}"
