"""Arrays of numbers in a page: packed as text, and weights in 8 bits."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharnn.checkpoint import to_int8

OCTAVES = 24  # range of the stored weights, in powers of 2 below the largest
STEP = OCTAVES / 254  # of log2, between two codes


def pack(array: Tensor, kind: str) -> dict[str, str]:
    """Packs an array for JSON: its little-endian bytes, deflated, in base64.

    Args:
        array: the numbers, of any shape.
        kind: the type to store: ``"uint8"``, ``"int32"`` or ``"float32"``.

    Returns:
        A dictionary of ``kind`` and ``data``.

    Example:
        >>> unpack(pack(torch.tensor([1.5, 2.0]), "float32"))
        array([1.5, 2. ], dtype=float32)
    """
    values = array.cpu().numpy().astype(np.dtype(kind).newbyteorder("<"))
    return {"kind": kind, "data": base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()}


def unpack(packed: Mapping[str, str]) -> np.ndarray[Any, Any]:
    """Returns the numbers that `pack` stored, in one dimension."""
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(data, np.dtype(packed["kind"]).newbyteorder("<")).astype(packed["kind"])


def pack_rows(rows: Tensor) -> tuple[dict[str, str], dict[str, str]]:
    """Packs a matrix in 8 bits: integers from 1 to 255, of which 128 is 0, and a scale per row.

    Example:
        >>> integers, scales = pack_rows(torch.tensor([[0.5, -1.27]]))
        >>> unpack(integers), unpack(scales)
        (array([178,   1], dtype=uint8), array([0.01], dtype=float32))
    """
    integers, scales = to_int8(rows)
    return pack(integers.int() + 128, "uint8"), pack(scales, "float32")


def quantise(weights: Tensor) -> tuple[Tensor, float]:
    """Quantises weights to 8-bit codes on a logarithmic scale.

    Code 255 is the largest weight, and each code below it is smaller by `STEP` in log2. Code 0
    is a weight of 0. The relative error is at most half a step, 3.3 %. Weights below 2^-24 of the
    largest become 0.

    Args:
        weights: non-negative numbers, of any shape.

    Returns:
        The codes (uint8, the same shape) and log2 of the largest weight.

    Example:
        >>> codes, log2_largest = quantise(torch.tensor([0.5, 0.25, 0.0]))
        >>> codes, log2_largest
        (tensor([255, 244,   0], dtype=torch.uint8), -1.0)
        >>> dequantise(codes, log2_largest)
        tensor([0.5000, 0.2433, 0.0000])
    """
    log2_largest = math.log2(max(float(weights.max()), 2.0**-126))
    logarithm = weights.clamp(min=2.0**-126).log2()
    codes = (255 - (log2_largest - logarithm) / STEP).round().clamp(min=0)
    return codes.to(torch.uint8), log2_largest


def dequantise(codes: Tensor, log2_largest: float) -> Tensor:
    """Returns the float32 weights that the codes of `quantise` represent."""
    weights = 2.0 ** (log2_largest - STEP * (255 - codes.float()))
    return weights * (codes > 0)
