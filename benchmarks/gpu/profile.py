"""Step "profile": where the time of a training step goes, against what the machine allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

import sharnn
from benchmarks.flops import training_flops
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.results import result_of
from benchmarks.gpu.training import trainer
from benchmarks.timing import seconds_of, spread
from sharnn.trainer import Trainer

STEPS = 3  # in the profile
TOP = 25  # operations in the results
# The first entry with a word that occurs in the name of a kernel, or of an operation on the CPU.
KINDS = (
    ("optimiser", ("multi_tensor", "foreach", "lerp", "addcmul", "adam")),
    ("LSTM", ("rnn", "lstm")),
    ("matrix products", ("gemm", "cutlass", "cublas", "aten::mm", "addmm", "bmm", "cijk", "nvjet")),
    ("softmax and loss", ("softmax", "nll", "cross_entropy")),
    ("LayerNorm", ("layer_norm", "layernorm", "gammabeta")),
    ("dropout", ("dropout", "bernoulli", "philox", "random")),
    ("copies and casts", ("copy", "memcpy", "memset", "cat", "fill", "to_copy")),
    ("reductions", ("reduce", "sum", "norm")),
    ("elementwise", ("elementwise", "mul", "add", "sigmoid", "tanh", "where", "vectorized")),
)
OTHER = "other"


def profile(plan: Plan) -> dict[str, Any]:
    """Times training steps, and profiles a few of them.

    Returns:
        ``"step"``, seconds; ``"floor"``, the seconds that its products and its transfers would take
        at the machine's measured rates, if they are known; ``"kinds"``, the share of the device's
        time by kind of work; ``"operations"``, the slowest ones; ``"kernels"``, the number of
        kernels in a step.
    """
    each = trainer(plan, plan.precisions[0])
    for _ in range(3):
        each.step()
    seconds = [seconds_of(each.step) for _ in range(3 if plan.tiny else 20)]
    operations = profiled(each)
    total = sum(spent for _, spent, _ in operations) or 1.0
    return {
        "step": spread(seconds),
        "floor": floor(plan),
        "device_seconds": total,
        "kinds": shares_of_kinds(operations),
        "operations": [
            {"name": name[:160], "share": spent / total, "calls": calls}
            for name, spent, calls in operations[:TOP]
        ],
        "kernels": sum(calls for _, _, calls in operations),
    }


def profiled(each: Trainer) -> list[tuple[str, float, float]]:
    """Profiles training steps, each of which ends when the device has nothing left to do.

    Returns:
        For each kernel (each operation on the CPU) its name, its seconds and its calls in one
        step, slowest first.
    """
    on_gpu = each.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as result:
        for _ in range(STEPS):
            each.step()
    rows = []
    for event in result.key_averages():
        # On a GPU's timeline a named range, such as the optimiser's step, is an event too, which
        # lasts as long as the kernels in it.
        named = getattr(event, "is_user_annotation", False)
        if named or on_gpu != (event.device_type == DeviceType.CUDA):
            continue
        micro = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if micro:
            rows.append((event.key, micro * 1e-6 / STEPS, event.count / STEPS))
    return sorted(rows, key=lambda row: -row[1])


def shares_of_kinds(operations: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """Returns the share of the time of each kind of work, largest first.

    Args:
        operations: from `profiled`.

    Example:
        >>> shares_of_kinds([("aten::mm", 3.0, 1.0), ("?", 1.0, 2.0)])
        {'matrix products': 0.75, 'other': 0.25}
    """
    kinds: dict[str, float] = defaultdict(float)
    for name, seconds, _ in operations:
        kinds[kind_of(name)] += seconds
    total = sum(kinds.values()) or 1.0
    ordered = sorted(kinds.items(), key=lambda item: -item[1])
    return {kind: seconds / total for kind, seconds in ordered}


def kind_of(name: str) -> str:
    """Returns the kind of work of a kernel or an operation, by its name.

    Example:
        >>> kind_of("sm90_xmma_gemm_f16f16"), kind_of("aten::native_layer_norm"), kind_of("?")
        ('matrix products', 'LayerNorm', 'other')
    """
    name = name.lower()
    return next((kind for kind, words in KINDS if any(w in name for w in words)), OTHER)


def floor(plan: Plan) -> dict[str, float] | None:
    """Returns the least seconds of a step; None if the rates have not been measured.

    The products run at the rate of one large product. Each weight is read forward and backward,
    and the optimiser reads and writes it with its gradient and its two means; the scores of the
    head are written and read four times in half precision. All at the rate of a copy.
    """
    limits = result_of(plan.earlier, "limits")
    if limits is None:
        return None
    config, recipe = plan.config, plan.recipe
    rows = config.memory - recipe.segment_length
    flops = training_flops(config, recipe.batch_size, recipe.segment_length, rows)
    with torch.device("meta"):
        parameters = sharnn.SHARNN(config).parameter_count()
    scores = recipe.batch_size * recipe.segment_length * config.memory * config.head_count
    moved = parameters * (2 * 2 + 8 * 4) + 8 * scores * 2
    return {
        "products": flops / limits["products"][plan.precisions[0]]["median"],
        "transfers": moved / limits["copy"]["median"],
        "flops": flops,
        "bytes": moved,
    }
