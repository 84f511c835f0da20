"""The attention explorer: an interactive page of a text, its attention and its ablations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharnn.analysis.ablation import ablate, keys_between, random_keys, require_draws, top_keys
from sharnn.analysis.page import page, page_size, payload
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import AttentionTrace, require_head, trace_attention
from sharnn.checkpoint import load
from sharnn.errors import InputError
from sharnn.io.files import require_writable, write_atomically
from sharnn.model import SHARNN
from sharnn.web.page import frame
from sharnn.weights import unwrap

MEGABYTES = 10.0


@dataclass(frozen=True)
class AblationResult:
    """Effect on one prediction of removing some remembered positions.

    Args:
        removed: number of removed positions.
        weight: their share of the attention weight.
        bits: extra bits that the target costs without them; negative if it costs fewer.
        random: extra bits without the same number of random positions, averaged over the draws.
        random_std: standard deviation over the draws.
    """

    removed: int
    weight: float
    bits: float
    random: float
    random_std: float


class Explorer:
    """A trace with an interactive page: the text, its attention, and the effect of ablations.

    As the last line of a notebook cell it displays itself: in JupyterLab, on Colab, and in a
    static page without kernel or network. `LiveExplorer` adds forms that run the model.

    Args:
        model: the model that was traced.
        trace: the trace.
        name: the model's name on the page.
        megabytes: maximum size of the page, in millions of bytes.

    Attributes:
        trace: the trace.
        replay: recomputes the trace's predictions with some positions removed.
        ablations: an `AblationTable` for each block that has the head.
        content: the data of the page. If the first targets were dropped to meet the maximum size,
            one of its ``notes`` says so.

    Raises:
        InputError: even a page with a single target exceeds ``megabytes``.

    Source: paper, simplified attention: the page shows its memory and weights.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> explorer = explore(model, b"hello <b>world</b> " * 10, targets=20)
        >>> explorer.trace.num_targets, "<b>" in explorer.page()
        (20, False)
        >>> result = explorer.ablate(5, count=10)
        >>> result.removed, 0 < result.weight < 1
        (10, True)
    """

    def __init__(
        self,
        model: SHARNN,
        trace: AttentionTrace,
        name: str = "model",
        megabytes: float = MEGABYTES,
    ) -> None:
        self.model, self.trace, self.megabytes = unwrap(model), trace, megabytes
        self.name = name.encode(errors="replace").decode()  # a file name may not be valid UTF-8
        self.replay = Replay(model, trace)
        self.ablations = {block: ablate(self.replay, block) for block in trace.weights}
        self.content = payload(trace, self.ablations, self._about(), self._title(), megabytes)

    def _about(self) -> str:
        config = self.model.config
        bits = self.trace.bits[self.trace.first :].mean().item()
        return (
            f"{self.name}: {self.model.parameter_count():,} parameters, {config.layers} blocks of "
            f"width {config.dim}, a memory of {self.trace.memory_limit:,} positions; "
            f"{bits:.2f} bits per byte on this text"
        )

    def _title(self) -> str:
        return f"What the head remembers: {self.name}"

    @cached_property
    def size(self) -> int:
        """Size of the page in bytes."""
        return page_size(self.content, self._title())

    def page(self) -> str:
        """Returns the page as one HTML document that needs no other file and no network."""
        return page(self.content, self._title())

    def save(self, path: str | Path) -> Path:
        """Writes the page and returns its path.

        Args:
            path: the file to write. An existing file is replaced only once the new one is
                complete.

        Raises:
            InputError: the file can't be written.
        """
        path = require_writable(path)
        write_atomically(path, self.page().encode())
        return path

    def ablate(
        self,
        target: int,
        *,
        count: int | None = None,
        between: tuple[int, int] | None = None,
        block: int | None = None,
        draws: int = 8,
        seed: int = 0,
    ) -> AblationResult:
        """Measures how much one prediction depends on some remembered positions.

        Args:
            target: index of the target, counted from 0.
            count: remove this number of positions, the most attended ones.
            between: or remove the positions from a nearest to a farthest distance, in bytes back.
            block: the block whose head loses the positions; None for the lowest with a head.
            draws: number of random draws of the same number of positions, the baseline.
            seed: seed of the draws.

        Raises:
            InputError: the target or the head does not exist, neither or both of ``count`` and
                ``between`` are given, or a value is out of range.
        """
        trace = self.trace
        if not 0 <= target < trace.num_targets:
            raise InputError(f"target must be from 0 to {trace.num_targets - 1}, got {target}")
        block = min(trace.weights) if block is None else block
        require_head(self.model, block)
        if (count is None) == (between is None):
            raise InputError("give either count or between")
        require_draws(draws)
        weights = trace.weights[block][target : target + 1]  # (1, memory)
        num_visible = trace.num_visible[target : target + 1]  # (1,)
        if count is not None:
            if count < 1:
                raise InputError(f"count must be at least 1, got {count}")
            removed = top_keys(weights, num_visible, min(count, trace.memory_limit))
        else:
            nearest, farthest = between or (1, 1)
            if not 1 <= nearest <= farthest:
                raise InputError(
                    "between must be (nearest, farthest) with 1 <= nearest <= farthest, "
                    f"got {between}"
                )
            if nearest > int(num_visible):
                raise InputError(
                    f"this target's query attends to distances up to {int(num_visible)}, "
                    f"got {nearest} as the nearest"
                )
            farthest = min(farthest, trace.memory_limit)
            removed = keys_between(num_visible, trace.memory_limit, nearest, farthest)
        num_removed = int(removed.sum())
        generator = torch.Generator().manual_seed(seed)

        def extra_bits(mask: Tensor) -> float:
            bits = self.replay.bits_without(block, mask, [target])
            return (bits - self.replay.bits[target]).item()

        masks = (
            random_keys(num_visible, trace.memory_limit, num_removed, generator)
            for _ in range(draws)
        )
        drawn = torch.tensor([extra_bits(mask) for mask in masks])  # (draws,)
        return AblationResult(
            removed=num_removed,
            weight=weights[removed].sum().item(),
            bits=extra_bits(removed),
            random=drawn.mean().item(),
            random_std=drawn.std().item(),
        )

    def _repr_html_(self) -> str:
        return frame(self.page(), "Attention explorer", 1500)

    def __repr__(self) -> str:
        return (
            f"Explorer({self.name}: {self.content['num_targets']:,} targets, "
            f"memory_limit {self.trace.memory_limit:,}, {self.size / 1e6:.1f} MB)"
        )


def explore(
    model: SHARNN | str | Path,
    data: Any,
    *,
    targets: int = 1024,
    start: int | None = None,
    memory_limit: int | None = None,
    segment_length: int | None = None,
    name: str | None = None,
    megabytes: float = MEGABYTES,
) -> Explorer:
    """Traces a text with a model and returns an explorer of its attention, byte by byte.

    Args:
        model: a model, or an argument of `sharnn.load`.
        data: bytes, a path, or a uint8 tensor or array.
        targets: maximum number of target bytes, whose predictions are traced; fewer if the data
            end earlier.
        start: offset in the data of the first target; None for the first position with a full
            memory before it (see `sharnn.trace_attention`).
        memory_limit: M, the maximum number of positions a query can attend to; None for the
            model's.
        segment_length: number of bytes read at a time; None for 256, or M / 4 if that is less.
        name: the model's name on the page; None for the name it was loaded by.
        megabytes: maximum size of the page, in millions of bytes. If the targets need more, the
            first of them are dropped, and a note on the page says so.

    Returns:
        An explorer. A notebook displays it; `Explorer.save` writes its page.

    Raises:
        InputError: the model has no head, the data are too short, a setting is out of range, or
            the model's weights or outputs contain NaN or Inf.

    Source: paper, simplified attention.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> explore(SHARNN(ModelConfig(dim=16, boom_dim=64, memory=50)), b"hello " * 20)
        Explorer(model: 119 targets, memory_limit 50, 0.1 MB)
    """
    if isinstance(model, (str, Path)):
        name = str(model) if name is None else name
        model = load(model)
    trace = trace_attention(
        model,
        data,
        targets=targets,
        start=start,
        memory_limit=memory_limit,
        segment_length=segment_length,
    )
    return Explorer(model, trace, name or "model", megabytes)
