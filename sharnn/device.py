"""Where a model computes: its device, its precision there, and the memory of the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import torch

from sharnn.distributed import Ranks
from sharnn.errors import InputError
from sharnn.precision import multiplies_bfloat16_fast


def pick_device(name: str) -> torch.device:
    """The device a recipe names.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Returns:
        The device.

    Raises:
        InputError: this machine, or this build of torch, doesn't have it.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not has[name]:
        raise InputError(f"device {name} is not available here: use device cpu or auto")
    return torch.device(name)


def own_device(name: str, ranks: Ranks) -> torch.device:
    """The device a recipe names; of several GPUs the one that is this process's.

    Args:
        name: see `pick_device`.
        ranks: this process and those it trains with.

    Returns:
        The device.

    Raises:
        InputError: as `pick_device`, or there are fewer GPUs than processes on this machine.

    Example:
        >>> own_device("cpu", Ranks())
        device(type='cpu')
    """
    device = pick_device(name)
    if ranks.count == 1 or device.type == "cpu":
        return device
    gpus = torch.cuda.device_count()
    if device.type != "cuda" or ranks.local >= gpus:
        raise InputError(
            f"each process needs a CUDA device of its own, and this machine has {gpus}: "
            "start as many processes, or use device cpu"
        )
    device = torch.device("cuda", ranks.local)
    torch.cuda.set_device(device)
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of activations and matrix products.

    cuDNN's fast persistent LSTM exists in float16 only. A CPU with bfloat16 instructions trains
    nearly twice as fast with them; another one is slower, and takes float32.

    Args:
        name: ``"auto"`` or a dtype's name.
        device: where the model is.

    Returns:
        The dtype.

    Raises:
        InputError: float16 was asked for on a device without loss scaling.

    Example:
        >>> pick_precision("float32", torch.device("cpu"))
        torch.float32
    """
    if name == "auto" and device.type == "cuda":
        return torch.float16
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16_fast(device) else torch.float32
    if name == "float16" and device.type != "cuda":
        raise InputError(f"float16 trains on a cuda device only, not on {device.type}: use float32")
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def keep_freed_memory() -> None:
    """Asks the C library to keep freed memory for the next allocation (Linux with glibc).

    By default every large tensor is mapped afresh and its pages are cleared one by one on first
    touch, which cost 10 to 25 % of a training step on the CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4  # names of mallopt's settings in malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
