"""Step "training": bytes a second of the paper's model, for each way to compute its step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

import sharnn
from benchmarks.cases import rate_of
from benchmarks.flops import training_flops
from benchmarks.gpu.limits import seconds_per_call
from benchmarks.gpu.plan import Plan, reason
from benchmarks.gpu.variants import compiled, with_fused_attention
from benchmarks.plain import PlainTrainer, plain_from, to_plain_state
from benchmarks.timing import compare, in_turns
from benchmarks.writers import fill_memory, random_state
from sharnn.trainer import Trainer

MakeTrainer = Callable[[], Trainer | PlainTrainer]
PLAIN = "the author's arrangement"


def training(plan: Plan) -> dict[str, Any]:
    """Measures the training speed with a full memory.

    Each way to compute a step is measured in turns with the author's arrangement. The numbers of
    streams are measured one after another.

    Returns:
        ``"ways"``, ``"batches"`` and ``"optimisers"``, as `compared` returns them; ``"library"``,
        the name of the library's own way; ``"left_out"``, by case, why it could not be measured;
        ``"flops_per_byte"`` and ``"step_bytes"``.
    """
    config, recipe = plan.config, plan.recipe
    own, backend = plan.precisions[0], "eager" if plan.tiny else "inductor"
    library = f"library, {own}"
    ways: dict[str, MakeTrainer] = {
        PLAIN: partial(plain_trainer, plan, own),
        library: partial(trainer, plan, own),
        f"library, {plan.precisions[1]}": partial(trainer, plan, plan.precisions[1]),
        "fused attention": partial(trainer, plan, own, with_fused_attention),
        "compiled": partial(trainer, plan, own, partial(compiled, backend=backend)),
    }
    left_out: dict[str, str] = {}
    found = in_pairs(plan, ways, left_out)
    by_batch: dict[str, list[float]] = {}
    for batch in plan.batches:
        make = partial(trainer, plan, own, batch=batch)
        by_batch |= measured(plan, {f"{batch} streams": make}, left_out)
    rows = config.memory - recipe.segment_length
    flops = training_flops(config, recipe.batch_size, recipe.segment_length, rows)
    positions = recipe.batch_size * recipe.segment_length
    return {
        "ways": found,
        "library": library,
        "batches": compared(by_batch, "B/s"),
        "optimisers": optimisers(plan, left_out),
        "left_out": left_out,
        "flops_per_byte": flops / positions,
        "step_bytes": positions,
    }


def in_pairs(
    plan: Plan, ways: Mapping[str, MakeTrainer], left_out: dict[str, str]
) -> dict[str, Any] | None:
    """Measures each way in turns with the first, or with the second if the first fails.

    All ways together need too much memory.

    Args:
        plan, ways, left_out: as in `measured`.

    Returns:
        As `compared`.
    """
    baseline, *others = ways
    found: dict[str, Any] | None = None
    for name in others:
        missing: dict[str, str] = {}
        pair = {each: ways[each] for each in (baseline, name)}
        result = compared(measured(plan, pair, missing), "B/s")
        if found is not None and baseline in missing:  # it has no room beside this way
            left_out[name] = f"{baseline}: {missing[baseline]}"
            continue
        left_out |= missing
        if found is None:
            found, baseline = result, name if baseline in missing else baseline
        elif result is not None:
            found["cases"] |= result["cases"] | found["cases"]
    return found


def optimisers(plan: Plan, left_out: dict[str, str]) -> dict[str, Any] | None:
    """Measures the seconds of an optimiser's step alone, for each way to compute it.

    LAMB, the recipe's, works on lists of tensors; torch's AdamW in one kernel is the floor.

    Args:
        plan: sizes and device.
        left_out: gets the reasons of those that could not be measured.

    Returns:
        As `compared`.
    """
    parameters = list(sharnn.SHARNN(plan.config).to(plan.device).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    lamb = sharnn.Lamb(parameters)
    alone = [sharnn.Lamb([parameter]) for parameter in parameters]
    adamw = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    # In a training step, too, a number on the device decides whether the weights change.
    for each in (lamb, *alone, adamw):
        each.found_inf = torch.zeros((), device=plan.device)  # type: ignore[attr-defined]
    ways: dict[str, Callable[[], Any]] = {
        "LAMB": lamb.step,
        "LAMB, tensor by tensor": lambda: [each.step() for each in alone],
        "AdamW, one kernel": adamw.step,
    }
    measures: dict[str, Callable[[], float]] = {}
    for name, work in ways.items():
        try:
            work()
            measures[name] = partial(seconds_per_call, plan, work)
        except Exception as error:  # a way that this device lacks
            left_out[name] = reason(error)
    return compared(in_turns_or_left_out(plan, measures, left_out), "s")


def in_turns_or_left_out(
    plan: Plan, measures: Mapping[str, Callable[[], float]], left_out: dict[str, str]
) -> dict[str, list[float]]:
    """Measures as `in_turns` does, and leaves out the cases that fail.

    Args:
        plan: number of repeats.
        measures: as in `in_turns`.
        left_out: gets the reasons of those that failed.
    """

    def measure(name: str) -> float:
        try:
            return measures[name]()
        except Exception as error:  # often out of memory: all cases are in memory now
            left_out[name] = reason(error)
            return math.nan

    numbers = in_turns({name: partial(measure, name) for name in measures}, plan.repeats)
    return {name: values for name, values in numbers.items() if name not in left_out}


def compared(found: Mapping[str, Sequence[float]], unit: str) -> dict[str, Any] | None:
    """Returns what `benchmarks.timing.compare` returns, relative to the first case.

    Returns None if nothing was measured.
    """
    if not found:
        return None
    return compare(found, next(iter(found)), unit, "less" if unit == "s" else "more")


def trainer(
    plan: Plan,
    precision: str,
    change: Callable[[sharnn.SHARNN], sharnn.SHARNN] | None = None,
    batch: int | None = None,
) -> Trainer:
    """Returns a trainer of the plan's model whose memory is full.

    Args:
        plan: sizes and device.
        precision: of the forward and backward pass.
        change: changes how the model computes; None for the library's way.
        batch: number of streams; None for the recipe's.
    """
    recipe = dataclasses.replace(plan.recipe, precision=precision)
    if batch is not None:
        recipe = dataclasses.replace(recipe, batch_size=batch)
    torch.manual_seed(0)
    model = sharnn.SHARNN(plan.config)
    result = Trainer(change(model) if change else model, plan.corpus(), recipe)
    fill_memory(result)
    return result


def plain_trainer(plan: Plan, precision: str) -> PlainTrainer:
    """Returns a trainer of the plain model in the author's arrangement, with a full memory."""
    recipe = dataclasses.replace(plan.recipe, precision=precision)
    torch.manual_seed(0)
    plain = plain_from(sharnn.SHARNN(plan.config)).to(plan.device)
    result = PlainTrainer(plain, plan.corpus(), recipe)
    rows = plan.config.memory - recipe.segment_length
    with torch.device(plan.device):
        result.state = to_plain_state(random_state(plan.config, recipe.batch_size, rows))
    return result


def step_rate(plan: Plan, each: Trainer | PlainTrainer) -> Callable[[], float]:
    """Returns a function that measures a trainer once, in bytes a second."""
    size = each.recipe.batch_size * each.recipe.segment_length

    def measure() -> float:
        plan.wait()
        each.offset = 0  # at the end of the text the memory would become empty
        return rate_of(each.step, size, plan.seconds)  # every step ends with a wait

    return measure


def measured(
    plan: Plan, ways: Mapping[str, MakeTrainer], left_out: dict[str, str]
) -> dict[str, list[float]]:
    """Measures trainers in turns and returns their rates by name.

    Args:
        plan: sizes and device.
        ways: by name, what makes a trainer.
        left_out: gets the reasons of those that could not be measured.
    """
    plan.release()
    measures: dict[str, Callable[[], float]] = {}
    for name, make in ways.items():
        try:
            each = make()
            for _ in range(3):
                each.step()  # compiles, loads kernels, and finds the loss scale
            measures[name] = step_rate(plan, each)
        except Exception as error:  # out of memory, or a way that this device lacks
            left_out[name] = reason(error)
    return in_turns_or_left_out(plan, measures, left_out)
