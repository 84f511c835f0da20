"""Step "limits": the machine's software, and its rates of matrix products and of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.plan import Plan
from benchmarks.timing import in_turns, seconds_of, spread

FLOAT_TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
}


def limits(plan: Plan) -> dict[str, Any]:
    """Measures matrix products in each precision, and how fast memory is copied.

    Returns:
        ``"software"`` and the device's name and memory; ``"products"``, FLOP/s by precision;
        ``"copy"``, B/s, where a copied byte counts twice, as it is read and written.
    """
    precisions = ["float32"] if plan.device == "cpu" else ["tf32", "float32"]
    if plan.device == "cuda":
        precisions = ["float16", *precisions]
    if "bfloat16" in plan.precisions:
        precisions.append("bfloat16")
    side = 256 if plan.tiny else 8192
    rates = in_turns({name: product(plan, name, side) for name in precisions}, plan.repeats)
    copies = in_turns({"copy": copy(plan, 2**20 if plan.tiny else 2**30)}, plan.repeats)
    return {
        "software": software(plan),
        "side": side,
        "products": {name: spread(values) for name, values in rates.items()},
        "copy": spread(copies["copy"]),
    }


def software(plan: Plan) -> dict[str, Any]:
    """Returns names and versions of the device and of the libraries that its speed depends on."""
    if plan.device == "cpu":
        return {"device": "CPU", "memory": None, "cuda": None, "cudnn": None}
    facts = torch.cuda.get_device_properties(0)
    return {
        "device": facts.name,
        "memory": facts.total_memory,
        "capability": f"{facts.major}.{facts.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def product(plan: Plan, precision: str, side: int) -> Callable[[], float]:
    """Returns a function that measures a square matrix product once, in FLOP/s."""
    dtype = FLOAT_TYPES[precision]
    left, right = (torch.randn(side, side, device=plan.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def measure() -> float:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        try:
            return 2 * side**3 / seconds_per_call(plan, lambda: torch.matmul(left, right, out=out))
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return measure


def copy(plan: Plan, size: int) -> Callable[[], float]:
    """Returns a function that measures a copy of ``size`` bytes once, in B/s."""
    source = torch.ones(size // 4, device=plan.device)
    target = torch.empty_like(source)
    return lambda: 2 * size / seconds_per_call(plan, lambda: target.copy_(source))


def seconds_per_call(plan: Plan, work: Callable[[], Any]) -> float:
    """Repeats a piece of work for about ``plan.seconds / 5`` and returns the seconds of a call.

    The device works through its queue while the host goes on, so the clock stops only when the
    queue is empty.
    """

    def calls(count: int) -> float:
        plan.wait()

        def run() -> None:
            for _ in range(count):
                work()
            plan.wait()

        return seconds_of(run) / count

    calls(1)  # the first call may load kernels
    once = calls(1)
    return calls(max(1, min(1000, round(plan.seconds / 5 / max(once, 1e-7)))))
