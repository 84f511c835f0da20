"""A Transformer of the x-transformers package, as large as a SHA-RNN, and how it is trained here.

It has what that package recommends today: rotary positions, RMSNorm, a gated feed-forward layer
without biases. Beside it stands everything that makes the comparison fair: the same optimiser, a
learning rate and a context length of its own, and windows that overlap when it is judged.
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
from sharnn.data import as_bytes
from sharnn.device import keep_freed_memory


@dataclass(frozen=True)
class TransformerRecipe:
    """The Transformer's shape and training beside what a `sharnn.Recipe` says.

    Args:
        dim: width.
        depth: blocks.
        heads: heads of a block, each of width 64 or ``dim / heads`` where that is less.
        context: bytes of a window, in training and when it is judged.
        batch_size: windows of a step.
        lr: peak learning rate.
        optimizer: ``"muon"`` or ``"adamw"``.
        precision: ``"float32"`` or ``"bfloat16"``, the latter by `torch.autocast`.
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
    """The model. Its feed-forward layers are as wide as the number of parameters allows.

    Args:
        parameters: how many it shall have.
        recipe: its shape.

    Returns:
        A module from (batch, time) integers to logits (batch, time, 256).

    Raises:
        sharnn.InputError: x-transformers is not installed, or the shape can't meet the number.
    """
    try:
        with warnings.catch_warnings():
            # It compiles helpers in a way that newer torch versions call deprecated.
            warnings.simplefilter("ignore")
            from x_transformers import Decoder, TransformerWrapper
    except ImportError as error:
        raise sharnn.InputError(
            'the Transformer needs x-transformers: pip install "sharnn[bench]"'
        ) from error

    def build(inner: int) -> nn.Module:
        return TransformerWrapper(
            num_tokens=256,
            max_seq_len=recipe.context,
            attn_layers=Decoder(
                dim=recipe.dim,
                depth=recipe.depth,
                heads=recipe.heads,
                attn_dim_head=min(64, recipe.dim // recipe.heads),
                attn_flash=True,
                rotary_pos_emb=True,
                use_rmsnorm=True,
                ff_glu=True,
                ff_swish=True,
                ff_no_bias=True,
                ff_mult=inner / recipe.dim,
                verbose=False,
            ),
        )

    # The number grows by the same amount with each unit of inner width.
    least, next_one = parameter_count(build(1)), parameter_count(build(2))
    inner = round(1 + (parameters - least) / (next_one - least))
    if inner < recipe.dim:
        raise sharnn.InputError(
            f"a Transformer of width {recipe.dim} and depth {recipe.depth} "
            f"can't be as small as {parameters:,} parameters"
        )
    return build(inner)


def parameter_count(model: nn.Module) -> int:
    """The number of trained numbers of a model.

    Args:
        model: the model.

    Returns:
        The count.
    """
    return sum(parameter.numel() for parameter in model.parameters())


def optimizer_of(model: nn.Module, name: str, lr: float) -> torch.optim.Optimizer:
    """AdamW for everything, or Muon for the matrices of the blocks and its AdamW for all else.

    Args:
        model: the Transformer.
        name: ``"muon"`` or ``"adamw"``.
        lr: learning rate.

    Returns:
        The optimiser.
    """
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    groups: dict[int, list[nn.Parameter]] = {0: [], 1: [], 2: []}
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and name.startswith("attn_layers.")
        # The gate and what it gates are two matrices stacked in one.
        stacked = 2 if ".ff.0.proj." in name else 1
        groups[stacked if is_matrix else 0].append(parameter)
    return sharnn.Muon(
        [
            {"params": members, "matrices": stacked > 0, "stacked": max(stacked, 1)}
            for stacked, members in groups.items()
            if members
        ],
        lr=lr,
    )


class TransformerTrainer:
    """Trains on windows that start anywhere, with the same loop as `sharnn.trainer.Trainer`.

    Args:
        corpus: what it learns from.
        parameters: how many the model shall have.
        own: the Transformer's shape and training.
        recipe: the end of the run, warm-up, schedule, clipping and seed.
    """

    def __init__(
        self,
        corpus: sharnn.Corpus,
        parameters: int,
        own: TransformerRecipe,
        recipe: sharnn.Recipe,
    ) -> None:
        keep_freed_memory()
        torch.manual_seed(recipe.seed)
        self.own, self.recipe = own, dataclasses.replace(recipe, lr=own.lr)
        self.train = corpus.train
        if len(self.train) <= own.context:
            raise sharnn.InputError(f"{corpus.name} is too short for windows of {own.context}")
        self.model = transformer(parameters, own)
        self.optimizer = optimizer_of(self.model, own.optimizer, own.lr)
        self.random = np.random.default_rng(recipe.seed)
        self.step_count, self.seconds = 0, 0.0

    @property
    def done(self) -> float:
        """The share of the run that is done; 1 or more at its end."""
        read = self.step_count * self.own.batch_size * self.own.context
        return self.recipe.done(self.step_count, read / len(self.train), self.seconds)

    def step(self) -> StepLoss:
        """Reads some windows and moves the weights."""
        lr = self.recipe.learning_rate(self.step_count, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.step_count += 1
        starts = self.random.integers(len(self.train) - self.own.context, size=self.own.batch_size)
        pieces = np.stack([self.train[s : s + self.own.context + 1] for s in starts])
        text = torch.from_numpy(pieces.astype(np.int64))  # (batch, context + 1)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.own.precision):
            logits = self.model(text[:, :-1])  # (batch, context, 256)
        loss = F.cross_entropy(logits.float().flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return StepLoss(loss.item(), text[:, 1:].numel())


@dataclass(frozen=True)
class StepLoss:
    """What a step did: nats per byte before it, and the bytes it read."""

    loss: float
    size: int


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context in which a model computes on the CPU.

    Args:
        precision: ``"float32"`` or ``"bfloat16"``.

    Returns:
        The context.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16)


@torch.no_grad()
def window_bits(
    model: nn.Module, data: Any, context: int, stride: int, precision: str = "float32"
) -> float:
    """Bits per byte of a model that knows its window only, from windows that overlap.

    A window counts its last ``stride`` positions, so that each byte beyond the first window is
    predicted from at least ``context - stride + 1`` bytes. The first window counts whole.

    Args:
        model: from (batch, time) integers to logits (batch, time, 256).
        data: bytes in any form `sharnn.bits_per_byte` takes.
        context: bytes of a window.
        stride: bytes from one window to the next.
        precision: ``"float32"`` or ``"bfloat16"``.

    Returns:
        Bits per byte of all bytes but the first.
    """
    source = as_bytes(data)
    text = torch.from_numpy(source[:].astype(np.int64))
    size = len(text) - 1
    context = min(context, size)
    starts = list(range(0, size - context + 1, stride))
    if starts[-1] + context < size:
        starts.append(size - context)  # the last window ends where the bytes end
    model.eval()
    nats, counted = 0.0, 0
    for first in range(0, len(starts), 16):
        group = starts[first : first + 16]
        pieces = torch.stack([text[s : s + context + 1] for s in group])  # (batch, context + 1)
        with autocast(precision):
            logits = model(pieces[:, :-1])
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), pieces[:, 1:], reduction="none"
        )  # (batch, context) nats
        for row, start in zip(losses, group, strict=True):
            fresh = start + context - counted  # bytes that no earlier window has counted
            nats += row[context - fresh :].double().sum().item()
            counted += fresh
    assert counted == size
    return nats / size / math.log(2)
