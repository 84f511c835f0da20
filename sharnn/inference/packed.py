"""Matrix products prepared for speed: one matrix, many products with a few vectors each."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.checkpoint import to_int8
from sharnn.errors import InputError, require_choice

Product = Callable[[Tensor], Tensor]

STORAGES = ("float32", "int8")
ROW_SLICES = 16  # the rows of a matrix are divided into this many slices
# With several threads, slicing is faster for up to this many vectors.
MAX_SLICED_VECTORS = 4
# With one thread, slicing is faster for one vector and a matrix of at least this many elements.
MIN_SLICED_ELEMENTS = 4_000_000


def pack(weight: Tensor, bias: Tensor | None, storage: str) -> Product:
    """Returns a function that computes ``x W' + b`` with the matrix in the given storage.

    The product of a matrix and one vector takes as long as reading the matrix from main memory.
    An int8 matrix takes a quarter of that time.

    Args:
        weight: (rows, columns).
        bias: (rows,), or None.
        storage: ``"float32"`` or ``"int8"``.

    Returns:
        A function from (batch, columns) to (batch, rows).

    Raises:
        InputError: ``storage`` is unknown, or not available on the device of ``weight``.

    Example:
        >>> product = pack(torch.eye(3), torch.ones(3), "float32")
        >>> product(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[2., 3., 4.]])
    """
    require_choice("storage", storage, STORAGES)
    if storage == "int8":
        return Int8Product(weight, bias)
    return FloatProduct(weight, bias)


@cache
def is_intel() -> bool:
    """Returns True on a processor made by Intel.

    There the math library, MKL, multiplies a single vector as fast as it can read the matrix.
    """
    path = Path("/proc/cpuinfo")
    name = path.read_text() if path.exists() else platform.processor()
    return "GenuineIntel" in name


class FloatProduct:
    """Computes x W' + b in the precision of the matrix.

    Except on Intel's processors, the math library computes the product with a single vector on one
    thread. Sliced along its rows, the matrix becomes a batch of small products that all threads
    share. On a single thread, slicing is faster for the largest matrices only.

    Args:
        weight: (rows, columns).
        bias: (rows,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        rows, columns = weight.shape
        self.weight, self.bias = weight.contiguous(), bias
        self.slices: Tensor | None = None
        if weight.device.type == "cpu" and rows % ROW_SLICES == 0:
            self.slices = self.weight.view(ROW_SLICES, rows // ROW_SLICES, columns)
            self.sliced_bias = weight.new_zeros(ROW_SLICES, rows // ROW_SLICES, 1)
            if bias is not None:
                self.sliced_bias += bias.view_as(self.sliced_bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (batch, columns) to (batch, rows)."""
        batch = x.shape[0]
        if self.slices is None or not self._is_faster_sliced(batch):
            return F.linear(x, self.weight, self.bias)
        vectors = x.t().expand(ROW_SLICES, -1, -1)  # (slices, columns, batch)
        y = torch.baddbmm(self.sliced_bias, self.slices, vectors)  # (slices, rows / slices, batch)
        return y.permute(2, 0, 1).reshape(batch, -1)

    def _is_faster_sliced(self, batch: int) -> bool:
        if is_intel():
            return False
        if torch.get_num_threads() == 1:
            return batch == 1 and self.weight.numel() >= MIN_SLICED_ELEMENTS
        return batch <= MAX_SLICED_VECTORS


class Int8Product:
    """A product of 8-bit integers.

    The matrix is W = s q c with one scale s per row and one scale c per column, and each vector is
    x = a p / c with one scale a. Sums of integers are exact, so the result does not depend on the
    number of threads.

    Args:
        weight: (rows, columns).
        bias: (rows,), or None.

    Raises:
        InputError: ``weight`` is not on the CPU.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        if weight.device.type != "cpu":
            raise InputError(
                f"int8 storage runs on the CPU only, not on {weight.device.type}: use float32"
            )
        # A component of x that is much larger than the others would leave them few integers. Such a
        # component has small weights, so with these scales matrix and vector share the imbalance.
        self.columns = weight.abs().amax(dim=0).clamp(min=1e-30).sqrt()  # (columns,)
        self.weight, scales = to_int8(weight / self.columns)  # (rows, columns), (rows, 1)
        self.scales = scales.t()  # (1, rows)
        self.bias = torch.zeros_like(self.scales) if bias is None else bias[None]  # (1, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (batch, columns) to (batch, rows)."""
        # x W' + b = a s (p q') + b, where x c = a p and W / c = s q
        p, a = to_int8(x * self.columns)
        return torch.addcmul(self.bias, torch._int_mm(p, self.weight.t()) * a, self.scales)
