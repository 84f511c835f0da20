"""Step "writing": bytes a second that a model with a full memory writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sharnn
from benchmarks.cases import rate_of
from benchmarks.gpu.captured import CapturedStepper
from benchmarks.gpu.plan import Plan, reason
from benchmarks.gpu.training import compared, in_turns_or_left_out
from benchmarks.writers import random_state, writer

WRITES = 16  # bytes between two readings of the clock
Step = Callable[[Tensor], Tensor]


def writing(plan: Plan) -> dict[str, Any]:
    """Measures writing with each implementation, for one text and for several at a time.

    Returns:
        By number of texts, what `benchmarks.gpu.training.compared` returns; ``"left_out"``, by
        case, why it could not be measured.
    """
    ways: dict[str, Callable[[sharnn.SHARNN, sharnn.State], Step]] = {
        "SHARNN.step": lambda model, state: writer("step", model, state),
        "Stepper": lambda model, state: writer("stepper, float32", model, state),
        "Stepper, captured": captured,
    }
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for batch in (1, 2) if plan.tiny else (1, 16):
        measures = {}
        missing: dict[str, str] = {}
        for name, make in ways.items():
            try:
                measures[name] = write_rate(plan, make, batch)
            except Exception as error:  # whatever a new device may raise
                missing[name] = reason(error)
        rates = in_turns_or_left_out(plan, measures, missing)
        results[str(batch)] = compared(rates, "B/s")
        left_out |= {f"{name}, {batch}": why for name, why in missing.items()}
        measures.clear()
        plan.release()
    return {"texts": results, "left_out": left_out}


def captured(model: sharnn.SHARNN, state: sharnn.State) -> Step:
    """Returns the step of a `CapturedStepper` that continues from a state."""
    stepper = sharnn.Stepper(model, batch_size=state.batch_size)
    stepper.load_state(state)
    return CapturedStepper(stepper).step


def write_rate(
    plan: Plan, make: Callable[[sharnn.SHARNN, sharnn.State], Step], batch: int
) -> Callable[[], float]:
    """Returns a function that measures once how many bytes a second are written, of all texts."""
    torch.manual_seed(0)
    model = sharnn.SHARNN(plan.config).to(plan.device).eval()
    state = random_state(plan.config, batch, plan.config.memory)
    step = make(model, state.map(lambda tensor: tensor.to(plan.device)))
    symbols = torch.full((batch,), 65, device=plan.device)

    def write() -> None:
        nonlocal symbols
        with torch.no_grad():
            for _ in range(WRITES):
                probabilities = torch.softmax(step(symbols), -1)  # (batch, vocab_size)
                # A sample, as of torch.multinomial, which makes the host wait for the device.
                noise = torch.empty_like(probabilities).exponential_()
                symbols = (probabilities / noise).argmax(-1)
        plan.wait()

    write()
    return lambda: rate_of(write, WRITES * batch, plan.seconds)
