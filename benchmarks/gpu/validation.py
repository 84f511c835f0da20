"""Step "validation": how fast the paper's run validates, in float32 and in its own precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import sharnn
from benchmarks.gpu.plan import Plan, reason
from benchmarks.gpu.training import compared, in_turns_or_left_out, trainer
from benchmarks.timing import seconds_of
from sharnn.trainer import Trainer

TRAINING_BYTES, VALIDATION_BYTES = 90_000_000, 5_000_000  # of enwik8
EPOCHS = 25
SEGMENTS = 16  # of each stream that is scored
BASELINE = "float32"


def validation(plan: Plan) -> dict[str, Any]:
    """Measures the scoring of a few segments as the trainer does it, precision by precision.

    Returns:
        ``"ways"``, as `compared` returns them; ``"bits"``, by way, the bits per byte of the same
        weights after a few steps; ``"hours"``, all validations of the paper's run in its own
        precision, None in a trial; ``"left_out"``, by way, why it could not be measured.
    """
    base = trainer(plan, BASELINE)
    for _ in range(3):
        base.step()
    weights, own = base.model.state_dict(), plan.precisions[0]
    trainers = {BASELINE: base}
    if own != BASELINE:
        trainers[own] = trainer(plan, own)
        trainers[own].model.load_state_dict(weights)
    bits: dict[str, float] = {}
    measures: dict[str, Callable[[], float]] = {}
    left_out: dict[str, str] = {}
    for name, each in trainers.items():
        try:
            bits[name] = score(plan, each)  # loads kernels, too
            measures[name] = partial(scoring_rate, plan, each)
        except Exception as error:  # out of memory
            left_out[name] = reason(error)
    ways = compared(in_turns_or_left_out(plan, measures, left_out), "B/s")
    hours = None
    if ways and own in ways["cases"] and not plan.tiny:
        rate = ways["cases"][own]["measured"]["median"]
        hours = validations() * VALIDATION_BYTES / rate / 3600
    return {"ways": ways, "bits": bits, "hours": hours, "left_out": left_out}


def score(plan: Plan, each: Trainer) -> float:
    """Scores the first validation bytes as `sharnn.train` does, in bits per byte."""
    streams = each.recipe.eval_batch_size
    with each.validation_precision():
        return sharnn.bits_per_byte(each.model, scored_bytes(plan, each), batch_size=streams)


def scored_bytes(plan: Plan, each: Trainer) -> Any:
    """Returns the validation bytes that are scored."""
    streams = each.recipe.eval_batch_size
    assert streams is not None
    return each.corpus.valid[: 2000 if plan.tiny else streams * SEGMENTS * 1024]


def scoring_rate(plan: Plan, each: Trainer) -> float:
    """Returns the bytes a second at which a trainer's model is scored."""
    return len(scored_bytes(plan, each)) / seconds_of(partial(score, plan, each))


def validations() -> float:
    """Returns the number of validations of the paper's run."""
    recipe = sharnn.Recipe.preset("paper")
    steps = EPOCHS * TRAINING_BYTES / (recipe.batch_size * recipe.segment_length)
    return steps / recipe.eval_every
