"""What predictions lose when their queries can't see some keys: the most attended, or any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharnn.analysis.replay import Replay
from sharnn.errors import InputError


def top_keys(weights: Tensor, visible: Tensor, k: int) -> Tensor:
    """Each query's most attended keys.

    Args:
        weights: (watched, memory) by distance, as in `Reading`.
        visible: (watched,) how many keys each query sees.
        k: how many to take; of a query that sees fewer, all it sees.

    Returns:
        (watched, memory) booleans by distance.

    Example:
        >>> top_keys(torch.tensor([[0.1, 0.6, 0.3, 0.0]]), torch.tensor([3]), 2).int()
        tensor([[0, 1, 1, 0]], dtype=torch.int32)
    """
    return _first(_ranked(weights, visible, k), visible, weights.shape[1], k)


def random_keys(
    visible: Tensor, memory: int, k: int, generator: torch.Generator | None = None
) -> Tensor:
    """Keys that each query sees, drawn evenly and each at most once.

    Args:
        visible: (watched,) how many keys each query sees.
        memory: M, the width of the mask.
        k: how many to draw; of a query that sees fewer, all it sees.
        generator: where the random numbers come from; None for torch's own.

    Returns:
        (watched, memory) booleans by distance.

    Example:
        >>> random_keys(torch.tensor([1, 4]), 5, 3).sum(-1)
        tensor([1, 3])
    """
    draws = torch.rand(len(visible), memory, generator=generator)
    return _first(_ranked(draws, visible, k), visible, memory, k)


def keys_between(visible: Tensor, memory: int, nearest: int, farthest: int) -> Tensor:
    """The keys at some distances.

    Args:
        visible: (watched,) how many keys each query sees.
        memory: M, the width of the mask.
        nearest: the smallest distance; 1 is the byte just before the watched one.
        farthest: the largest distance.

    Returns:
        (watched, memory) booleans by distance, True only where a key is seen.

    Example:
        >>> keys_between(torch.tensor([3, 5]), 5, 2, 4).int()
        tensor([[0, 1, 1, 0, 0],
                [0, 1, 1, 1, 0]], dtype=torch.int32)
    """
    distance = torch.arange(1, memory + 1)
    return (distance >= nearest) & (distance <= farthest) & (distance <= visible[:, None])


def _ranked(scores: Tensor, visible: Tensor, k: int) -> Tensor:
    """(watched, k) columns of the highest scores, highest first; what can't be seen comes last."""
    if k < 0:
        raise InputError(f"the number of keys must be at least 0, got {k}")
    memory = scores.shape[1]
    unseen = torch.arange(memory) >= visible[:, None]  # (watched, memory)
    return scores.masked_fill(unseen, -1).topk(min(k, memory), dim=-1).indices


def _first(columns: Tensor, visible: Tensor, memory: int, k: int) -> Tensor:
    """(watched, memory) mask of the first k of each row's columns, where they are seen."""
    columns = columns[:, :k]
    mask = torch.zeros(len(columns), memory, dtype=torch.bool)
    return mask.scatter(1, columns, columns < visible[:, None])


@dataclass(frozen=True)
class Losses:
    """Bits that each watched byte loses without some of its keys.

    Args:
        counts: how many keys were removed.
        top: (watched, counts) bits lost without the most attended keys.
        random: (watched, counts) the mean over draws of the bits lost without as many by chance.
        random_size: (watched, counts) the mean over draws of the size of that change. One draw
            changes a prediction so much; in ``random`` draws of different sign cancel.
        spread: (watched, counts) the standard deviation over the draws.
        bands: nearest and farthest distance of each band.
        band: (watched, bands) bits lost without the keys of a band.
        draws: how many times keys were drawn by chance.
    """

    counts: tuple[int, ...]
    top: Tensor
    random: Tensor
    random_size: Tensor
    spread: Tensor
    bands: tuple[tuple[int, int], ...]
    band: Tensor
    draws: int


def distance_bands(memory: int) -> tuple[tuple[int, int], ...]:
    """Distances in bands, each of which ends 8 times as far back as the one before.

    Args:
        memory: M, the farthest distance. The last band ends there, at least 8 times as far back as
            the one before.

    Returns:
        Nearest and farthest distance of each band.

    Example:
        >>> distance_bands(5000)
        ((1, 1), (2, 8), (9, 64), (65, 512), (513, 5000))
    """
    bands, nearest, farthest = [], 1, 1
    while farthest * 8 <= memory:
        bands.append((nearest, farthest))
        nearest, farthest = farthest + 1, farthest * 8
    return (*bands, (nearest, memory))


def losses(
    replay: Replay,
    block: int,
    counts: Sequence[int] = (1, 4, 16, 64, 256),
    draws: int = 8,
    seed: int = 0,
) -> Losses:
    """What each watched byte loses without its most attended keys, and without others.

    As many keys by chance are the yardstick for the most attended ones: a query that loses the same
    without either does not need what it looked at. One draw serves all counts, the larger ones
    hold the smaller: differences between counts are then less a matter of chance.

    Args:
        replay: the watched bytes.
        block: whose head loses the keys.
        counts: how many keys to remove.
        draws: how many times to draw keys by chance, at least 2.
        seed: of the draws.

    Returns:
        The bits lost. Negative ones are won.

    Raises:
        InputError: the block has no head, or ``draws`` or ``counts`` can't be used.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> from sharnn.model import SHARNN
        >>> from sharnn.analysis.trace import read
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> replay = Replay(model, read(model, b"hello " * 50, watched=30))
        >>> lost = losses(replay, block=2, counts=(1, 10))
        >>> lost.top.shape, lost.band.shape, lost.bands
        (torch.Size([30, 2]), torch.Size([30, 3]), ((1, 1), (2, 8), (9, 100)))
    """
    if draws < 2:
        raise InputError(f"draws must be at least 2 to tell how they differ, got {draws}")
    if not counts or min(counts) < 1:
        raise InputError(f"counts must be numbers of keys, each at least 1, got {tuple(counts)}")
    reading = replay.reading
    if block not in reading.weights:
        raise InputError(f"block {block} has no head, blocks {tuple(reading.weights)} have")
    visible, memory = reading.visible, reading.memory

    def lost(removed: Tensor) -> Tensor:
        return replay.bits_without(block, removed) - replay.bits  # (watched,)

    def lost_in_order(columns: Tensor) -> Tensor:
        parts = [lost(_first(columns, visible, memory, k)) for k in counts]
        return torch.stack(parts, dim=-1)  # (watched, counts)

    most = max(counts)
    generator = torch.Generator().manual_seed(seed)
    top = lost_in_order(_ranked(reading.weights[block], visible, most))
    chance = []
    for _ in range(draws):
        scores = torch.rand(len(visible), memory, generator=generator)
        chance.append(lost_in_order(_ranked(scores, visible, most)))
    drawn = torch.stack(chance)  # (draws, watched, counts)
    bands = distance_bands(memory)
    band = [lost(keys_between(visible, memory, *ends)) for ends in bands]
    return Losses(
        counts=tuple(counts),
        top=top,
        random=drawn.mean(dim=0),
        random_size=drawn.abs().mean(dim=0),
        spread=drawn.std(dim=0),
        bands=bands,
        band=torch.stack(band, dim=-1),
        draws=draws,
    )
