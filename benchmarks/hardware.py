"""Limits of the machine: the speed of matrix products, and of copying and reading memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import compare, in_turns, seconds_of

BATCH, SEGMENT = 16, 128  # as in the recipes of the laptop presets
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def products(dim: int, memory: int) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Returns the matrix products that take most of a training step.

    Args:
        dim: width of the model.
        memory: number of remembered rows.

    Returns:
        For each product, the shapes of its two factors.
    """
    positions = BATCH * SEGMENT
    return {
        "Boom, or the input of an LSTM": ((positions, dim), (dim, 4 * dim)),
        "one position of an LSTM": ((BATCH, dim), (dim, 4 * dim)),
        "query": ((positions, dim), (dim, dim)),
        "scores over the memory": ((BATCH, SEGMENT, dim), (BATCH, dim, memory)),
    }


def product_rate(left: Tensor, right: Tensor, min_seconds: float) -> Callable[[], float]:
    """Returns a function that measures the rate of one matrix product.

    The rate is in floating point operations per second, 2 for each multiply-add.

    Args:
        left, right: the factors.
        min_seconds: approximate duration of one measurement, for which the product is repeated.
    """
    flops = 2 * left.numel() * right.shape[-1]
    out = left @ right
    once = seconds_of(lambda: torch.matmul(left, right, out=out))
    calls = max(1, round(min_seconds / max(once, 1e-7)))

    def measure() -> float:
        def work() -> None:
            for _ in range(calls):
                torch.matmul(left, right, out=out)

        return flops * calls / seconds_of(work)

    return measure


def bandwidth(size: int) -> dict[str, Callable[[], float]]:
    """Returns functions that measure the rate of copying and of reading memory.

    The rates are in bytes per second. A copied byte counts twice, as it is read and written.

    Args:
        size: size of the tensor in bytes, larger than the caches.
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
        quick: True for small tensors and few repeats, to test the harness.

    Returns:
        The entry for the results file.
    """
    repeats, min_seconds = (3, 0.005) if quick else (15, 0.1)
    side = 256 if quick else 2048
    measures: dict[str, Callable[[], float]] = {}
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    shapes[f"square, {side}"] = ((side, side), (side, side))
    for dim in (256,) if quick else (256, 512):
        for name, pair in products(dim, 256 if quick else 1920).items():
            shapes[f"{name}, d = {dim}"] = pair
    for precision, dtype in DTYPES.items():
        for name, (left, right) in shapes.items():
            measures[f"{name}, {precision}"] = product_rate(
                torch.randn(left).to(dtype), torch.randn(right).to(dtype), min_seconds
            )
    rates = in_turns(measures, repeats)
    memory = in_turns(bandwidth(2**22 if quick else 2**28), repeats)
    return {
        "matrix_products": compare(rates, f"square, {side}, float32", "FLOP/s", "more"),
        "memory": compare(memory, "copy", "B/s", "more"),
    }
