"""Matrices made ready once for many products with few vectors, as generation needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sharnn.errors import InputError

Product = Callable[[Tensor], Tensor]

WEIGHTS = ("float32", "int8")
PIECES = 16
FEW = 4  # vectors up to which pieces pay on several threads
LARGE = 4_000_000  # weights from which they pay on a single one


def pack(weight: Tensor, bias: Tensor | None, weights: str) -> Product:
    """A function that multiplies vectors with a matrix, whose storage is chosen for speed.

    A product of a matrix and one vector reads each weight once and does nothing else of note, so
    its time is the time to read them: int8 weights take a quarter of it.

    Args:
        weight: (rows, columns).
        bias: (rows,), or None.
        weights: ``"float32"`` or ``"int8"``.

    Returns:
        A function from (batch, columns) to ``x W' + b``, (batch, rows).

    Raises:
        InputError: there is no such storage, or not on this device.

    Example:
        >>> product = pack(torch.eye(3), torch.ones(3), "float32")
        >>> product(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[2., 3., 4.]])
    """
    require_storage(weights, WEIGHTS)
    if weights == "int8":
        return Int8Product(weight, bias)
    return FloatProduct(weight, bias)


class FloatProduct:
    """A product in the weights' own precision.

    On the CPU a library gives one vector's product to one thread. Cut into pieces of rows it is a
    batch of small products, which all threads share. On a single thread that pays for the largest
    matrices only.

    Args:
        weight: (rows, columns).
        bias: (rows,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        rows, columns = weight.shape
        self.weight, self.bias = weight.contiguous(), bias
        self.pieces: Tensor | None = None
        if weight.device.type == "cpu" and rows % PIECES == 0:
            self.pieces = self.weight.view(PIECES, rows // PIECES, columns)
            self.offsets = weight.new_zeros(PIECES, rows // PIECES, 1)
            if bias is not None:
                self.offsets += bias.view_as(self.offsets)

    def __call__(self, x: Tensor) -> Tensor:
        """Takes (batch, columns) to (batch, rows)."""
        batch = x.shape[0]
        if self.pieces is None or not self._is_faster_in_pieces(batch):
            return F.linear(x, self.weight, self.bias)
        vectors = x.t().expand(PIECES, -1, -1)  # (pieces, columns, batch)
        y = torch.baddbmm(self.offsets, self.pieces, vectors)  # (pieces, rows / pieces, batch)
        return y.permute(2, 0, 1).reshape(batch, -1)

    def _is_faster_in_pieces(self, batch: int) -> bool:
        if torch.get_num_threads() == 1:
            return batch == 1 and self.weight.numel() >= LARGE
        return batch <= FEW


class Int8Product:
    """A product of 8-bit integers: W = s q with one scale s a row, x = a p with one a vector.

    Sums of integers are exact, so that it does not matter how threads share them.

    Args:
        weight: (rows, columns).
        bias: (rows,), or None.

    Raises:
        InputError: this device has no such product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        if weight.device.type != "cpu":
            raise InputError(
                f"int8 weights are for the CPU, not for {weight.device.type}: use float32"
            )
        self.weight, scales = to_int8(weight)  # (rows, columns), (rows, 1)
        self.scales = scales.t()  # (1, rows)
        self.bias = torch.zeros_like(self.scales) if bias is None else bias[None]  # (1, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """Takes (batch, columns) to (batch, rows)."""
        # x W' + b = a s (p q') + b
        p, a = to_int8(x)
        return torch.addcmul(self.bias, torch._int_mm(p, self.weight.t()) * a, self.scales)


def require_storage(weights: str, among: Sequence[str]) -> None:
    """Refuses a way to store weights that there is not.

    Args:
        weights: the name of one.
        among: those there are.

    Raises:
        InputError: it is none of them.

    Example:
        >>> require_storage("int8", WEIGHTS)
    """
    if weights not in among:
        raise InputError(f"weights must be one of {', '.join(among)}, got {weights!r}")


def to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as whole numbers from -127 to 127, and what they count.

    Args:
        x: (rows, columns).

    Returns:
        (rows, columns) int8, and (rows, 1) scales: ``x`` is about their product.

    Example:
        >>> to_int8(torch.tensor([[0.5, -1.27]]))
        (tensor([[  50, -127]], dtype=torch.int8), tensor([[0.0100]]))
    """
    scales = x.abs().amax(dim=1, keepdim=True).div_(127).clamp_(min=1e-30)
    return (x / scales).round_().to(torch.int8), scales
