"""Which number formats a machine multiplies fast."""

from __future__ import annotations

import torch


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are much faster than in float32.

    On a CPU that takes instructions of its own for them (AVX512-BF16, AMX or Arm's BF16), which
    bring three to four times the speed; without them bfloat16 is slower than float32. A CUDA
    device has them from the Ampere generation on: a T4 has none.

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
        return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False
