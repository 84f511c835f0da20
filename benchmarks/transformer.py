"""A Transformer from the package x-transformers with as many parameters as an SHA-RNN.

It has the components that the package recommends: rotary positions, RMSNorm, and gated
feed-forward layers without biases. To make the comparison fair, it can be trained with the same
optimiser, has its own learning rate and context length, and is scored on overlapping windows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import sharnn
from sharnn.device import pick_device
from sharnn.io.byte_sources import as_bytes
from sharnn.optional import import_optional
from sharnn.trainer import NonFiniteError

MAX_UNFUSED_CONTEXT = 128


@dataclass(frozen=True)
class TransformerRecipe:
    """The Transformer's shape and its training settings; the others come from a `sharnn.Recipe`.

    Args:
        dim: width.
        depth: number of blocks.
        heads: heads per block, each of width 64, or ``dim // heads`` if that is less.
        context: number of bytes in a window, in training and scoring.
        batch_size: number of windows in a step.
        lr: peak learning rate.
        optimizer: ``"muon"`` or ``"adamw"``.
        precision: ``"float32"`` or ``"bfloat16"``, which uses `torch.autocast`.
    """

    dim: int
    depth: int
    heads: int
    context: int
    batch_size: int
    lr: float
    optimizer: str = "muon"
    precision: str = "float32"


def transformer(parameters: int, recipe: TransformerRecipe) -> nn.Module:
    """Returns a Transformer whose feed-forward width is chosen to match a number of parameters.

    Args:
        parameters: the number of parameters to match.
        recipe: the Transformer's shape.

    Returns:
        A module from (batch, time) integers to logits (batch, time, 256).

    Raises:
        sharnn.InputError: x-transformers is not installed, or the other layers alone need more
            parameters.
    """
    with warnings.catch_warnings():
        # It compiles functions in a way that is deprecated in newer versions of torch.
        warnings.simplefilter("ignore")
        package = import_optional("x_transformers", "the Transformer", "x-transformers")
    Decoder, TransformerWrapper = package.Decoder, package.TransformerWrapper  # noqa: N806

    def build(inner: int) -> nn.Module:
        return TransformerWrapper(
            num_tokens=256,
            max_seq_len=recipe.context,
            attn_layers=Decoder(
                dim=recipe.dim,
                depth=recipe.depth,
                heads=recipe.heads,
                attn_dim_head=min(64, recipe.dim // recipe.heads),
                # PyTorch's fused attention is slower for short windows on a CPU (RUNS.md).
                attn_flash=recipe.context > MAX_UNFUSED_CONTEXT,
                rotary_pos_emb=True,
                use_rmsnorm=True,
                ff_glu=True,
                ff_swish=True,
                ff_no_bias=True,
                ff_mult=inner / recipe.dim,
                verbose=False,
            ),
        )

    # The count is linear in the inner width.
    first, second = parameter_count(build(1)), parameter_count(build(2))
    inner = round(1 + (parameters - first) / (second - first))
    if inner < recipe.dim:
        raise sharnn.InputError(
            f"a Transformer of width {recipe.dim} and depth {recipe.depth} "
            f"needs more than {parameters:,} parameters: use a smaller width or depth"
        )
    return build(inner)


def parameter_count(model: nn.Module) -> int:
    """Returns the number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def make_optimizer(model: nn.Module, name: str, recipe: sharnn.Recipe) -> torch.optim.Optimizer:
    """Returns AdamW, or Muon for the matrices of the blocks with its AdamW for everything else.

    Args:
        model: the Transformer.
        name: ``"muon"`` or ``"adamw"``.
        recipe: learning rate, betas, epsilon and weight decay.
    """
    settings: dict[str, Any] = {
        "lr": recipe.lr,
        "betas": (recipe.beta1, recipe.beta2),
        "eps": recipe.eps,
        "weight_decay": recipe.weight_decay,
    }
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), fused=True, **settings)
    groups: dict[int, list[nn.Parameter]] = {0: [], 1: [], 2: []}
    for parameter_name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and parameter_name.startswith("attn_layers.")
        # The gate and the gated values are computed by two matrices stacked into one.
        stacked = 2 if ".ff.0.proj." in parameter_name else 1
        groups[stacked if is_matrix else 0].append(parameter)
    return sharnn.Muon(
        [
            {"params": members, "matrices": stacked > 0, "stacked": max(stacked, 1)}
            for stacked, members in groups.items()
            if members
        ],
        **settings,
    )


class TransformerTrainer:
    """Trains a Transformer on windows at random positions, one step at a time.

    As in `sharnn.Trainer`, a step with a non-finite loss or gradient is skipped.

    Args:
        corpus: the training data.
        parameters: number of parameters of the model.
        own: the Transformer's shape and training settings.
        recipe: device, end of the run, warm-up, schedule, clipping, seed, maximum number of
            consecutive skipped steps, and the optimiser's settings except its name and learning
            rate.

    Attributes:
        seconds: training time so far; the caller adds to it.
        skipped: number of skipped steps so far.

    Raises:
        sharnn.InputError: the corpus is too short, the device is not available, or see
            `transformer`.
    """

    def __init__(
        self,
        corpus: sharnn.Corpus,
        parameters: int,
        own: TransformerRecipe,
        recipe: sharnn.Recipe,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.own, self.recipe = own, dataclasses.replace(recipe, lr=own.lr)
        self.train = corpus.train
        if len(self.train) <= own.context:
            raise sharnn.InputError(f"{corpus.name} is too short for windows of {own.context}")
        self.device = pick_device(recipe.device)
        self.model = transformer(parameters, own).to(self.device)
        self.optimizer = make_optimizer(self.model, own.optimizer, self.recipe)
        self.random = np.random.default_rng(recipe.seed)
        self.step_count, self.seconds = 0, 0.0
        self.skipped = self.consecutive_skips = 0

    @property
    def progress(self) -> float:
        """Fraction of the run that is complete; 1 or more at its end."""
        read = self.step_count * self.own.batch_size * self.own.context
        return self.recipe.progress(self.step_count, read / len(self.train), self.seconds)

    def step(self) -> StepLoss:
        """Trains on the next batch of windows.

        Raises:
            NonFiniteError: one non-finite step too many in a row.
        """
        lr = self.recipe.learning_rate(self.step_count, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.step_count += 1
        starts = self.random.integers(len(self.train) - self.own.context, size=self.own.batch_size)
        pieces = np.stack([self.train[s : s + self.own.context + 1] for s in starts])
        text = torch.from_numpy(pieces.astype(np.int64)).to(self.device)  # (batch, context + 1)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.own.precision, self.device):
            logits = self.model(text[:, :-1])  # (batch, context, 256)
        loss = F.cross_entropy(logits.float().flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        finite = math.isfinite(loss.item()) and math.isfinite(norm.item())
        if finite:
            self.optimizer.step()
        self._count_skips(not finite)
        return StepLoss(loss.item(), text[:, 1:].numel(), not finite)

    def _count_skips(self, skipped: bool) -> None:
        """Counts skipped steps, and ends the run if there are too many in a row."""
        self.skipped += skipped
        self.consecutive_skips = self.consecutive_skips + 1 if skipped else 0
        if self.consecutive_skips > self.recipe.max_skips:
            raise NonFiniteError(
                f"{self.consecutive_skips} consecutive steps had a non-finite loss or gradient"
            )


@dataclass(frozen=True)
class StepLoss:
    """The outcome of one step.

    Args:
        loss: nats per byte before the step.
        size: number of bytes predicted.
        skipped: the weights were not updated because the loss or the gradient was not finite.
    """

    loss: float
    size: int
    skipped: bool


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Returns the context manager for a forward pass.

    Args:
        precision: ``"float32"``, or the name of the dtype.
        device: the model's.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


@torch.no_grad()
def window_bits(
    model: nn.Module, data: Any, context: int, stride: int, precision: str = "float32"
) -> float:
    """Returns the bits per byte of a model without carried state, scored on overlapping windows.

    The first window is scored in full, each later one on its last ``stride`` positions. So each
    byte after the first window is predicted from at least ``context - stride + 1`` bytes. The
    first byte is not predicted.

    Args:
        model: a module from (batch, time) integers to logits (batch, time, 256).
        data: bytes, a path, or a uint8 tensor or array, as for `sharnn.bits_per_byte`.
        context: number of bytes in a window.
        stride: number of bytes from the start of one window to the next.
        precision: ``"float32"`` or ``"bfloat16"``.
    """
    source = as_bytes(data)
    text = torch.from_numpy(source[:].astype(np.int64))
    size = len(text) - 1
    context = min(context, size)
    starts = list(range(0, size - context + 1, stride))
    if starts[-1] + context < size:
        starts.append(size - context)  # the last window ends with the data
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    model.eval()
    nats, counted = 0.0, 0
    for first in range(0, len(starts), 16):
        group = starts[first : first + 16]
        pieces = torch.stack([text[s : s + context + 1] for s in group])  # (batch, context + 1)
        pieces = pieces.to(device)
        with autocast(precision, device):
            logits = model(pieces[:, :-1])
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), pieces[:, 1:], reduction="none"
        )  # (batch, context) nats
        for window, start in zip(losses, group, strict=True):
            new = start + context - counted  # bytes that earlier windows did not predict
            nats += window[context - new :].double().sum().item()
            counted += new
    assert counted == size
    return nats / size / math.log(2)
