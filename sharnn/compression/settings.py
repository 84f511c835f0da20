"""Settings of torch while it computes predictions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SETTINGS_LOCK = threading.RLock()
# Since torch 2.9 each backend has its own precision setting, and the older function fails once the
# new setting has been used.
MATMUL_BACKEND = getattr(torch.backends.mkldnn, "matmul", None)
FULL_PRECISION = "ieee" if MATMUL_BACKEND else "highest"


@contextmanager
def reproducible() -> Iterator[None]:
    """Context manager: settings under which the same operations give the same bits.

    It uses one thread, because sums that threads share are rounded in a different order, and full
    float32 precision without autocast. The settings apply to the whole process and are restored
    afterwards. Other Python threads that enter the context meanwhile wait until it is left.

    Example:
        >>> with reproducible():
        ...     torch.get_num_threads()
        1
    """
    with SETTINGS_LOCK:
        threads, precision = torch.get_num_threads(), _precision()
        torch.set_num_threads(1)
        _set_precision(FULL_PRECISION)
        try:
            with torch.autocast("cpu", enabled=False), torch.inference_mode(False):
                yield
        finally:
            torch.set_num_threads(threads)
            _set_precision(precision)


def _precision() -> str:
    """Returns the precision setting of float32 matrix products on the CPU."""
    if not MATMUL_BACKEND:
        return torch.get_float32_matmul_precision()
    precision = str(MATMUL_BACKEND.fp32_precision)
    # An inherited value must stay inherited: restored as the backend's own, it would no longer
    # follow later changes of its source.
    return "none" if precision == torch.backends.mkldnn.fp32_precision else precision


def _set_precision(precision: str) -> None:
    if MATMUL_BACKEND:
        MATMUL_BACKEND.fp32_precision = precision
    else:
        torch.set_float32_matmul_precision(precision)
