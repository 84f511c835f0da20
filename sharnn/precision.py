"""Number formats of matrix products: which are fast here, and which are in use."""

from __future__ import annotations

import torch
from torch import Tensor


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are much faster than in float32.

    An x86 CPU needs instructions of its own for them (AVX512-BF16 or AMX), which bring three to
    four times the speed; without them bfloat16 is slower than float32. A CUDA device has them
    from the Ampere generation on: a T4 has none.

    Args:
        device: where the products would be computed.

    Returns:
        True where it pays; False also where torch is too old to say.

    Example:
        >>> multiplies_bfloat16_fast(torch.device("meta"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


def in_product_dtype(x: Tensor) -> Tensor:
    """The tensor in the dtype that matrix products take it in: autocast's, where that is on.

    A remembered row takes part in thousands of products. Cast once, it is not cast again in each
    of them, and takes half of the memory; the products are the same.

    Args:
        x: floats.

    Returns:
        The tensor itself, or a cast one.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     in_product_dtype(torch.zeros(2)).dtype
        torch.bfloat16
    """
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x
