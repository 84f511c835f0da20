"""Ablation of attention: the extra bits of predictions whose queries lose some of their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import require_head
from sharnn.errors import InputError


def top_keys(weights: Tensor, num_visible: Tensor, k: int) -> Tensor:
    """Returns a mask of each query's k most attended keys.

    Args:
        weights: (targets, memory) by distance, as in `sharnn.AttentionTrace`.
        num_visible: (targets,) number of keys each query can attend to.
        k: number of keys; a query with fewer gets all of them.

    Returns:
        Booleans (targets, memory_limit); column j is the key j + 1 bytes before the target.

    Example:
        >>> top_keys(torch.tensor([[0.1, 0.6, 0.3, 0.0]]), torch.tensor([3]), 2).int()
        tensor([[0, 1, 1, 0]], dtype=torch.int32)
    """
    return _first_columns(_rank(weights, num_visible, k), num_visible, weights.shape[1], k)


def random_keys(
    num_visible: Tensor, memory_limit: int, k: int, generator: torch.Generator | None = None
) -> Tensor:
    """Returns a mask of k visible keys per query, drawn uniformly without replacement.

    Args:
        num_visible: (targets,) number of keys each query can attend to.
        memory_limit: M, the width of the mask.
        k: number of keys; a query with fewer gets all of them.
        generator: source of the random numbers; None for PyTorch's default generator.

    Returns:
        Booleans (targets, memory_limit); column j is the key j + 1 bytes before the target.

    Example:
        >>> random_keys(torch.tensor([1, 4]), 5, 3).sum(-1)
        tensor([1, 3])
    """
    scores = torch.rand(len(num_visible), memory_limit, generator=generator)
    return _first_columns(_rank(scores, num_visible, k), num_visible, memory_limit, k)


def keys_between(num_visible: Tensor, memory_limit: int, nearest: int, farthest: int) -> Tensor:
    """Returns a mask of the visible keys in a range of distances.

    Args:
        num_visible: (targets,) number of keys each query can attend to.
        memory_limit: M, the width of the mask.
        nearest: the smallest distance; 1 is the byte just before the target.
        farthest: the largest distance.

    Returns:
        Booleans (targets, memory_limit); column j is the key j + 1 bytes before the target.

    Example:
        >>> keys_between(torch.tensor([3, 5]), 5, 2, 4).int()
        tensor([[0, 1, 1, 0, 0],
                [0, 1, 1, 1, 0]], dtype=torch.int32)
    """
    distance = torch.arange(1, memory_limit + 1)
    return (distance >= nearest) & (distance <= farthest) & (distance <= num_visible[:, None])


def _rank(scores: Tensor, num_visible: Tensor, k: int) -> Tensor:
    """Returns the columns (targets, k) of the highest scores in order, invisible keys last."""
    if k < 0:
        raise InputError(f"the number of keys must be at least 0, got {k}")
    memory = scores.shape[1]
    invisible = torch.arange(memory) >= num_visible[:, None]  # (targets, memory)
    return scores.masked_fill(invisible, -1).topk(min(k, memory), dim=-1).indices


def _first_columns(columns: Tensor, num_visible: Tensor, memory: int, k: int) -> Tensor:
    """Returns a mask (targets, memory) of the visible keys among the first k columns."""
    columns = columns[:, :k]
    mask = torch.zeros(len(columns), memory, dtype=torch.bool)
    return mask.scatter(1, columns, columns < num_visible[:, None])


@dataclass(frozen=True)
class AblationTable:
    """Extra bits that each target costs without some of its keys. Negative values are savings.

    Args:
        counts: numbers of removed keys.
        top: (targets, counts) extra bits without the most attended keys.
        random: (targets, counts) extra bits without the same number of random keys, averaged over
            the draws.
        random_abs: (targets, counts) absolute value of that change, averaged over the draws. This
            is the size of a single draw's effect: in ``random``, draws of opposite sign cancel.
        random_std: (targets, counts) standard deviation of the change over the draws.
        bands: nearest and farthest distance of each band.
        by_band: (targets, bands) extra bits without the keys of a band.
        draws: number of random draws.
    """

    counts: tuple[int, ...]
    top: Tensor
    random: Tensor
    random_abs: Tensor
    random_std: Tensor
    bands: tuple[tuple[int, int], ...]
    by_band: Tensor
    draws: int


def distance_bands(memory_limit: int) -> tuple[tuple[int, int], ...]:
    """Returns bands of distance, each of which ends 8 times as far back as the one before.

    Args:
        memory_limit: M, the largest distance. The last band ends there, at least 8 times as far
            back as the one before.

    Returns:
        The nearest and farthest distance of each band.

    Example:
        >>> distance_bands(5000)
        ((1, 1), (2, 8), (9, 64), (65, 512), (513, 5000))
    """
    bands, nearest, farthest = [], 1, 1
    while farthest * 8 <= memory_limit:
        bands.append((nearest, farthest))
        nearest, farthest = farthest + 1, farthest * 8
    return (*bands, (nearest, memory_limit))


def ablate(
    replay: Replay,
    block: int,
    counts: Sequence[int] = (1, 4, 16, 64, 256),
    draws: int = 8,
    seed: int = 0,
) -> AblationTable:
    """Measures how many extra bits each target costs without some of its keys.

    Three kinds of keys are removed: the k most attended, k random ones, and all keys in a band of
    distance. The random keys are the baseline for the most attended ones: if a prediction changes
    by the same amount without either, it does not depend on the keys that it attends to. Each
    draw serves all counts: the first k of the same random order are removed. Sharing draws
    reduces the variance of differences between counts.

    Args:
        replay: the replay of the traced targets.
        block: the block whose head loses the keys.
        counts: numbers of keys to remove.
        draws: number of random draws, at least 2.
        seed: seed of the draws.

    Raises:
        InputError: the block has no head, or ``draws`` or ``counts`` is out of range.

    Example:
        >>> from sharnn.config import ModelConfig
        >>> from sharnn.model import SHARNN
        >>> from sharnn.analysis.trace import trace_attention
        >>> model = SHARNN(ModelConfig(dim=16, boom_dim=64, memory=100))
        >>> replay = Replay(model, trace_attention(model, b"hello " * 50, targets=30))
        >>> table = ablate(replay, block=2, counts=(1, 10))
        >>> table.top.shape, table.by_band.shape, table.bands
        (torch.Size([30, 2]), torch.Size([30, 3]), ((1, 1), (2, 8), (9, 100)))
    """
    require_draws(draws)
    if not counts or min(counts) < 1:
        raise InputError(f"counts must be numbers of keys, each at least 1, got {tuple(counts)}")
    require_head(replay.model, block)
    trace = replay.trace
    num_visible, memory = trace.num_visible, trace.memory_limit

    def extra_bits(removed: Tensor) -> Tensor:
        return replay.bits_without(block, removed) - replay.bits  # (targets,)

    def extra_bits_in_order(columns: Tensor) -> Tensor:
        parts = [extra_bits(_first_columns(columns, num_visible, memory, k)) for k in counts]
        return torch.stack(parts, dim=-1)  # (targets, counts)

    largest = max(counts)
    generator = torch.Generator().manual_seed(seed)
    top = extra_bits_in_order(_rank(trace.weights[block], num_visible, largest))
    parts = []
    for _ in range(draws):
        scores = torch.rand(len(num_visible), memory, generator=generator)
        parts.append(extra_bits_in_order(_rank(scores, num_visible, largest)))
    drawn = torch.stack(parts)  # (draws, targets, counts)
    bands = distance_bands(memory)
    by_band = [extra_bits(keys_between(num_visible, memory, *ends)) for ends in bands]
    return AblationTable(
        counts=tuple(counts),
        top=top,
        random=drawn.mean(dim=0),
        random_abs=drawn.abs().mean(dim=0),
        random_std=drawn.std(dim=0),
        bands=bands,
        by_band=torch.stack(by_band, dim=-1),
        draws=draws,
    )


def require_draws(draws: int) -> None:
    """Raises an error unless there are enough draws for a standard deviation.

    Raises:
        InputError: there are fewer than 2.
    """
    if draws < 2:
        raise InputError(f"draws must be at least 2 for a standard deviation, got {draws}")
