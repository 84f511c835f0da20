"""Products of small integers, each sum exact."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharnn.checkpoint import to_int8
from sharnn.exact.arithmetic import Array, quantise

Integers = npt.NDArray[Any]  # int8 or float32, whole numbers from -127 to 127

LARGEST = 127.0
# float32 holds every integer up to 2^24: a sum of this many products is never rounded.
MAX_COLUMNS = (2**24 - 1) // 127**2
CHECKED_SHAPES = ((1, 256, 64), (2, 64, 1), (12, 256, 1024), (64, 1000, 33))


@cache
def storage() -> type[np.generic]:
    """Returns the type of integers that this machine multiplies fastest without an error.

    It is int8 if torch multiplies such matrices exactly. On some processors it uses an instruction
    that adds two products in 16 bits, where the largest do not fit. There it is float32.
    """
    for rows, columns, outputs in CHECKED_SHAPES:
        a = np.full((rows, columns), 127, dtype=np.int8)
        a[:, ::3] = -127
        b = np.full((columns, outputs), 127, dtype=np.int8)
        try:
            result = _multiply_int8(a, b)
        except (AttributeError, RuntimeError):  # this version of torch can't multiply them
            return np.float32
        if not np.array_equal(result, a.astype(np.int64) @ b.astype(np.int64)):
            return np.float32
    return np.int8


def multiply(a: Integers, b: Integers) -> npt.NDArray[Any]:
    """Returns the product of two matrices of integers of the same type.

    Args:
        a: (rows, columns).
        b: (columns, outputs).

    Returns:
        (rows, outputs), whole numbers.

    Example:
        >>> ones = np.ones((2, 3), dtype=np.float32)
        >>> multiply(ones, ones.T).tolist()
        [[3.0, 3.0], [3.0, 3.0]]
    """
    if a.dtype == np.int8:
        return _multiply_int8(a, b)
    product = np.asarray(a[:, :MAX_COLUMNS] @ b[:MAX_COLUMNS], dtype=np.float64)
    for start in range(MAX_COLUMNS, a.shape[1], MAX_COLUMNS):
        product += a[:, start : start + MAX_COLUMNS] @ b[start : start + MAX_COLUMNS]
    return product


def _multiply_int8(a: Integers, b: Integers) -> npt.NDArray[np.int32]:
    # torch returns wrong numbers for a single column whose stride is 0, as b[:, None] has it.
    if b.shape[1] == 1:
        b = b.copy()
    product: npt.NDArray[np.int32] = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    return product


class IntegerMatrix:
    """A matrix as 8-bit integers with one scale per row.

    Args:
        weight: (rows, columns).

    Example:
        >>> matrix = IntegerMatrix(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        >>> matrix(np.array([[2.0, -4.0]])).round(2).tolist()
        [[2.02, -0.99]]
    """

    def __init__(self, weight: Tensor) -> None:
        numbers, scales = to_int8(weight.detach())  # (rows, columns), (rows, 1)
        self.numbers: Integers = numbers.numpy().astype(storage())
        self.scales: Array = scales[:, 0].double().numpy()

    def replace(self, weight: Array) -> None:
        """Takes another matrix of the same shape, (rows, columns)."""
        self.numbers, scales = quantise(weight, LARGEST)  # (rows, columns), (rows, 1)
        self.numbers, self.scales = self.numbers.astype(storage()), scales[:, 0]

    def __call__(self, x: Array) -> Array:
        """Maps (streams, columns) to (streams, rows); the vectors are quantised as well."""
        # W x = s a (q p)  with W = s q and x = a p
        p, a = quantise(x, LARGEST)
        product = multiply(p.astype(self.numbers.dtype), self.numbers.T)
        return product * a * self.scales

    def rows(self, indices: npt.NDArray[np.int64]) -> Array:
        """Returns rows of the matrix, (indices, columns)."""
        return self.numbers[indices] * self.scales[indices, None]

    def transposed(self, y: Array) -> Array:
        """Maps (streams, rows) to (streams, columns): the product with the transposed matrix."""
        # W' y = a (p q)  with W = s q and s y = a p
        p, a = quantise(y * self.scales, LARGEST)
        return np.asarray(multiply(p.astype(self.numbers.dtype), self.numbers) * a)

    def weight(self) -> Array:
        """Returns the matrix, (rows, columns)."""
        return self.numbers * self.scales[:, None]
