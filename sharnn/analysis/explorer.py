"""The attention explorer: see what the heads remembered of a text, and what it was good for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharnn.analysis.ablation import keys_between, losses, random_keys, top_keys
from sharnn.analysis.page import frame, page, payload
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import Reading, read
from sharnn.checkpoint import load, require_writable, write_atomically
from sharnn.errors import InputError
from sharnn.model import SHARNN

MEGABYTES = 10.0


@dataclass(frozen=True)
class Loss:
    """What one prediction loses without some remembered positions.

    Args:
        removed: how many positions were hidden.
        weight: the share of the attention that they had.
        bits: bits that the byte costs more; negative where it costs less.
        random: the mean of the same for as many positions by chance.
        spread: its standard deviation over the draws.
    """

    removed: int
    weight: float
    bits: float
    random: float
    spread: float


class Explorer:
    """A reading that displays itself: the text, where the heads looked, and why it matters.

    The last line of a notebook's cell shows it, in JupyterLab, on Colab, and in a built page that
    has neither kernel nor network. `LiveExplorer` adds questions to the model.

    Args:
        model: the model.
        reading: what it read.
        name: what the page calls the model.
        megabytes: the most that the page may weigh, in millions of bytes.

    Attributes:
        reading: the reading.
        replay: makes its predictions again with some positions hidden.
        losses: for each block that has the head, what the bytes lose without some positions.
        content: what the page shows; the note among its ``notes`` says what had to be dropped.

    Raises:
        InputError: the page can't be so small.

    Source: paper, simplified attention: its memory and weights are what is shown.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> explorer = explore(model, b"hello <b>world</b> " * 10, watched=20)
        >>> explorer.reading.watched, "<b>" in explorer.page()
        (20, False)
        >>> loss = explorer.bits_lost(5, count=10)
        >>> loss.removed, 0 < loss.weight < 1
        (10, True)
    """

    def __init__(
        self, model: SHARNN, reading: Reading, name: str = "model", megabytes: float = MEGABYTES
    ) -> None:
        self.model, self.reading, self.megabytes = model, reading, megabytes
        self.name = name.encode(errors="replace").decode()  # a file's name may be no UTF-8
        self.replay = Replay(model, reading)
        self.losses = {block: losses(self.replay, block) for block in reading.weights}
        self.content = payload(reading, self.losses, self._about(), megabytes)

    def _about(self) -> str:
        config = self.model.config
        bits = self.reading.bits[self.reading.first :].mean().item()
        return (
            f"{self.name}: {self.model.parameter_count():,} parameters, {config.layers} blocks of "
            f"width {config.dim}, a memory of {self.reading.memory:,} positions; "
            f"{bits:.2f} bits per byte on this text"
        )

    def page(self) -> str:
        """The page as one HTML document that needs no other file and no network.

        Returns:
            The document.
        """
        return page(self.content, f"What the head remembers: {self.name}")

    def save(self, path: str | Path) -> Path:
        """Writes the page.

        Args:
            path: where to; a file of this name is replaced when the new one is whole.

        Returns:
            The path.

        Raises:
            InputError: it can't be written there.
        """
        path = require_writable(path)
        write_atomically(path, self.page().encode())
        return path

    def bits_lost(
        self,
        byte: int,
        *,
        count: int | None = None,
        between: tuple[int, int] | None = None,
        block: int | None = None,
        draws: int = 8,
        seed: int = 0,
    ) -> Loss:
        """What the prediction of one watched byte loses when its head can't see some positions.

        Args:
            byte: which watched byte, counted from 0.
            count: remove so many positions, the most attended.
            between: or remove those at these distances, nearest and farthest (bytes back).
            block: the head's block; None for the lowest that has one.
            draws: how often as many positions are drawn by chance, to compare with.
            seed: of the draws.

        Returns:
            The loss in bits, and that by chance.

        Raises:
            InputError: there is no such byte or head, neither or both of ``count`` and
                ``between`` are given, or they make no sense.
        """
        reading = self.reading
        if not 0 <= byte < reading.watched:
            raise InputError(f"byte must be from 0 to {reading.watched - 1}, got {byte}")
        block = min(reading.weights) if block is None else block
        if block not in reading.weights:
            raise InputError(f"block {block} has no head; these have: {sorted(reading.weights)}")
        if (count is None) == (between is None):
            raise InputError("give either count or between")
        if draws < 2:
            raise InputError(f"draws must be at least 2 to tell how they differ, got {draws}")
        weights = reading.weights[block][byte : byte + 1]  # (1, memory)
        visible = reading.visible[byte : byte + 1]  # (1,)
        if count is not None:
            if count < 1:
                raise InputError(f"count must be at least 1, got {count}")
            removed = top_keys(weights, visible, min(count, reading.memory))
        else:
            nearest, farthest = between or (1, 1)
            if not 1 <= nearest <= farthest:
                raise InputError(f"between must be (nearest, farthest) from 1 on, got {between}")
            if nearest > int(visible):
                raise InputError(f"this byte's prediction sees only {int(visible)} bytes back")
            removed = keys_between(visible, reading.memory, nearest, min(farthest, reading.memory))
        size = int(removed.sum())
        generator = torch.Generator().manual_seed(seed)

        def lost(hidden: Tensor) -> float:
            bits = self.replay.bits_without(block, hidden, [byte])
            return (bits - self.replay.bits[byte]).item()

        chance = torch.tensor(
            [lost(random_keys(visible, reading.memory, size, generator)) for _ in range(draws)]
        )
        weight = weights[removed].sum().item()
        return Loss(size, weight, lost(removed), chance.mean().item(), chance.std().item())

    def _repr_html_(self) -> str:
        return frame(self.page())

    def __repr__(self) -> str:
        size = len(self.page()) / 1e6
        return (
            f"Explorer({self.name}: {self.content['watched']:,} watched bytes, "
            f"memory {self.reading.memory:,}, {size:.1f} MB)"
        )


def explore(
    model: SHARNN | str | Path,
    data: Any,
    *,
    watched: int = 1024,
    start: int | None = None,
    memory: int | None = None,
    segment_length: int | None = None,
    name: str | None = None,
    megabytes: float = MEGABYTES,
) -> Explorer:
    """Reads a text with a model and shows where its heads looked, byte by byte.

    Args:
        model: a model, or what `sharnn.load` takes.
        data: bytes, a path, or a uint8 tensor or array.
        watched: the most bytes to watch; fewer where the data end.
        start: offset in the data of the first watched byte; None for the first place with a full
            memory before it (see `sharnn.analysis.trace.read`).
        memory: M, the most positions a query may see; None takes the model's.
        segment_length: bytes read at a time; None for 256, or a quarter of M where that is less.
        name: what the page calls the model; None takes the name it was loaded by.
        megabytes: the most that the page may weigh, in millions of bytes. Where the watched bytes
            need more, the first of them are dropped, and the page says so.

    Returns:
        An object that displays itself, and writes itself with `Explorer.save`.

    Raises:
        InputError: the model has no head, the data are too short, or a setting is out of range.

    Source: paper, simplified attention.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> explore(SHARNN(ModelConfig(dim=16, boom_dim=64, memory=50)), b"hello " * 20)
        Explorer(model: 119 watched bytes, memory 50, 0.1 MB)
    """
    if not isinstance(model, SHARNN):
        name = str(model) if name is None else name
        model = load(model)
    reading = read(
        model,
        data,
        watched=watched,
        start=start,
        memory=memory,
        segment_length=segment_length,
    )
    return Explorer(model, reading, name or "model", megabytes)
