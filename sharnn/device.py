"""The device of a model, the precision used there, and the CPU's memory allocator."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from sharnn.errors import InputError

# Parts of messages of torch's allocator on Linux and Windows, and whole messages of oneDNN.
ALLOCATOR_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory: you tried")
ONEDNN_OUT_OF_MEMORY = (
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory object",
)


def pick_device(name: str) -> torch.device:
    """Returns the device that a recipe names.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``; ``"auto"`` is CUDA if available,
            else the CPU.

    Raises:
        InputError: the device is not available on this machine or in this build of torch.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[name]:
        raise InputError(f"device {name} is not available here: use device cpu or auto")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Returns the dtype of activations and matrix products.

    cuDNN's fast persistent LSTM kernel exists only in float16. On a CPU with bfloat16
    instructions, bfloat16 trains nearly twice as fast as float32; on other CPUs it is slower.

    Args:
        name: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"``: float16 on CUDA,
            bfloat16 on a CPU with fast bfloat16 products, else float32.
        device: the model's device.

    Raises:
        InputError: float16 on a device other than CUDA, where loss scaling is not available.

    Example:
        >>> pick_precision("float32", torch.device("cpu"))
        torch.float32
    """
    if name == "auto" and device.type == "cuda":
        return torch.float16
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if name == "float16" and device.type != "cuda":
        raise InputError(f"float16 trains only on a cuda device, not on {device.type}: use float32")
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Returns True if matrix products in bfloat16 are much faster than in float32.

    With AVX512-BF16 or AMX instructions, an x86 CPU multiplies bfloat16 matrices three to four
    times as fast as float32; without them bfloat16 is slower. A CUDA device needs compute
    capability 8.0 (Ampere); a T4 is too old. Returns False if torch is too old to report CPU
    capabilities.

    Example:
        >>> has_fast_bfloat16(torch.device("meta"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


def to_autocast_dtype(x: Tensor) -> Tensor:
    """Casts a float tensor to autocast's dtype if autocast is on; otherwise returns it unchanged.

    A remembered row takes part in thousands of products. Casting it once saves a cast in each of
    them and half of the memory; the products are the same.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     to_autocast_dtype(torch.zeros(2)).dtype
        torch.bfloat16
    """
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Context manager: sets the number of CPU threads, and restores it afterwards.

    The number changes how sums are rounded.

    Example:
        >>> with cpu_threads(1):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory for later allocations (Linux with glibc only).

    By default every large tensor is mapped anew, and the kernel clears its pages on first access,
    which takes 10 to 25 % of a training step on the CPU. The setting applies to the whole
    process, so it is for programs to call, not for libraries: ``sharnn train`` does.

    Example:
        >>> keep_freed_memory()
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX in malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if an exception means that the CPU or the GPU ran out of memory.

    On the CPU, torch raises a plain RuntimeError, recognisable only by its message: that of torch's
    allocator, or that of oneDNN, which reports a lack of memory in this way, but an unsupported
    operation as another kind of object that it could not create.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("allocation of names"))
        (True, False)
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return text in ONEDNN_OUT_OF_MEMORY or any(part in text for part in ALLOCATOR_OUT_OF_MEMORY)
