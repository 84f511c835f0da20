"""Step "memory": the peak memory of a training step, projected from its shapes and measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import sharnn
from benchmarks.gpu.live_bytes import LiveBytes
from benchmarks.gpu.plan import Plan, reason
from benchmarks.gpu.training import trainer
from sharnn.trainer import Trainer

# Autocast computes LayerNorm, softmax and the loss in float32; products, dropout and activations
# have the precision of the run.
FULL = 4  # bytes
LSTM_NUMBERS = 6  # that the LSTM keeps for each unit: four gates, the cell and its tanh


def projected(config: sharnn.ModelConfig, batch: int, time: int, half: bool) -> dict[str, int]:
    """Returns the bytes that a training step needs at its peak, by what needs them.

    The peak is in the backward pass through the newest head: everything before it is still kept.

    Args:
        config: the model's configuration.
        batch: number of streams.
        time: number of bytes of each segment; the memory is full.
        half: True for a run in 16 bits, False for float32.

    Example:
        >>> paper = sharnn.ModelConfig.preset("paper")
        >>> round(sum(projected(paper, 16, 1024, half=True).values()) / 1e9, 1)
        8.1
    """
    size = 2 if half else FULL
    dim, positions, keys = config.dim, batch * time, config.memory
    with torch.device("meta"):
        parameters = sharnn.SHARNN(config).parameter_count()
    cast = size if half else 0  # a copy in 16 bits, for the products
    mask = 1 if config.dropout else 0  # a byte for each element
    dropped = (mask + size) * bool(config.dropout)
    # LN_start and the LSTM's input, its inside, its output; LN_ff and LN_xff read one vector.
    lstm = FULL + FULL + cast + LSTM_NUMBERS * size + size + dropped
    boom_norms = FULL + FULL + cast + dropped
    boom = config.boom_dim * (size + size + size)  # W h + b, 1.702 times it, its sigmoid
    block = dim * (lstm + boom_norms) + boom
    # LN_mem, LN_mid, the query and its norm, the query scaled: a dozen vectors for each position.
    head = dim * (6 * FULL + 6 * size + 2 * dropped)
    score = FULL + (mask + FULL) * bool(config.dropout) + cast  # softmax, dropped, cast
    heads = config.head_count
    working = size + FULL + FULL  # gradients of one head's scores, weights and dropped weights
    return {
        "weights": FULL * parameters,
        "gradients": FULL * parameters,
        "optimiser": 2 * FULL * parameters,
        "weights in 16 bits": cast * parameters,
        "memories, before and after": 2 * heads * batch * keys * dim * size,
        "blocks": config.layers * positions * block,
        "heads, without scores": heads * positions * head,
        "scores": heads * positions * keys * score,
        "gradients of scores": bool(heads) * positions * keys * working,
        "output and loss": positions * (config.vocab_size * (size + 2 * FULL) + dim * dropped),
    }


def memory(plan: Plan) -> dict[str, Any]:
    """Measures the peak memory of a step for several numbers of streams.

    Returns:
        ``"batches"``: for each, the projection in bytes by part, and the ``"measured"`` peak;
        ``"left_out"``, by number of streams, why it could not be measured.
    """
    config, recipe = plan.config, plan.recipe
    precision = plan.precisions[0]
    batches: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for batch in plan.batches:
        parts = projected(config, batch, recipe.segment_length, half=precision != "float32")
        entry = {"projected": parts, "total": sum(parts.values()), "measured": None}
        batches[str(batch)] = entry
        try:
            each = trainer(plan, precision, batch=batch)
            each.step()
            entry["measured"] = peak_of_step(plan, each)
        except Exception as error:  # out of memory
            left_out[f"{batch} streams"] = reason(error)
        each = None  # type: ignore[assignment]
        plan.release()
    return {"precision": precision, "batches": batches, "left_out": left_out}


def peak_of_step(plan: Plan, each: Trainer) -> int:
    """Returns the peak memory of one training step, in bytes, with everything that it keeps."""
    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        each.step()
        return torch.cuda.max_memory_allocated()
    each.optimizer.zero_grad(set_to_none=True)
    existing: list[Tensor] = [*each.model.parameters()]
    existing += [
        value
        for values in each.optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor)
    ]
    if each.state is not None:
        existing += each.state.to_tensors().values()
    with LiveBytes(existing) as count:
        each.step()
    return count.peak
