"""The limits of the machine: how fast it multiplies matrices, copies and reads memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import compared, in_turns, seconds_of

BATCH, SEGMENT = 16, 128  # of the laptop recipes
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def products(dim: int, memory: int) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of the matrix products that make up most of a training step.

    Args:
        dim: width of the model.
        memory: rows a query sees beside its segment.

    Returns:
        For each product its two factors' shapes.
    """
    positions = BATCH * SEGMENT
    return {
        "Boom, or the input of an LSTM": ((positions, dim), (dim, 4 * dim)),
        "one position of an LSTM": ((BATCH, dim), (dim, 4 * dim)),
        "query": ((positions, dim), (dim, dim)),
        "scores over the memory": ((BATCH, SEGMENT, dim), (BATCH, dim, memory)),
    }


def rate(left: Tensor, right: Tensor, least_seconds: float) -> Callable[[], float]:
    """A measure of one matrix product.

    Args:
        left, right: the factors.
        least_seconds: the product is repeated for about that long.

    Returns:
        A function that returns floating point operations a second, 2 for each multiply-add.
    """
    flops = 2 * left.numel() * right.shape[-1]
    out = left @ right
    once = seconds_of(lambda: torch.matmul(left, right, out=out))
    calls = max(1, round(least_seconds / max(once, 1e-7)))

    def measure() -> float:
        def work() -> None:
            for _ in range(calls):
                torch.matmul(left, right, out=out)

        return flops * calls / seconds_of(work)

    return measure


def bandwidth(size: int) -> dict[str, Callable[[], float]]:
    """Measures of memory that no cache holds.

    Args:
        size: bytes of the tensor.

    Returns:
        For each of copying and reading a function that returns bytes a second. Copying counts
        what is read and what is written.
    """
    source = torch.ones(size // 4)
    target = torch.empty_like(source)

    def copy() -> float:
        return 2 * size / seconds_of(lambda: target.copy_(source))

    def read() -> float:
        return size / seconds_of(lambda: torch.dot(source, source))

    return {"copy": copy, "read": read}


def hardware(quick: bool) -> dict[str, Any]:
    """Measures the limits.

    Args:
        quick: small tensors and few repeats, to test the harness.

    Returns:
        What the results file holds of it.
    """
    repeats, least = (3, 0.005) if quick else (15, 0.1)
    side = 256 if quick else 2048
    measures: dict[str, Callable[[], float]] = {}
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    shapes[f"square, {side}"] = ((side, side), (side, side))
    for dim in (256,) if quick else (256, 512):
        for name, pair in products(dim, 256 if quick else 1920).items():
            shapes[f"{name}, d = {dim}"] = pair
    for precision, dtype in DTYPES.items():
        for name, (left, right) in shapes.items():
            measures[f"{name}, {precision}"] = rate(
                torch.randn(left).to(dtype), torch.randn(right).to(dtype), least
            )
    turns = in_turns(measures, repeats)
    memory = in_turns(bandwidth(2**22 if quick else 2**28), repeats)
    return {
        "matrix_products": compared(turns, f"square, {side}, float32", "FLOP/s", "more"),
        "memory": compared(memory, "copy", "B/s", "more"),
    }
