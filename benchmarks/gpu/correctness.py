"""Step "correctness": the author's numbers, the CPU's, and those of interrupted runs."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import sharnn
from benchmarks.gpu.captured import CapturedStepper
from benchmarks.gpu.plan import Plan, reason
from benchmarks.page_blocks import ROOT
from sharnn.trainer import Trainer

AUTHOR = ROOT / "tests" / "reference" / "golden_single.npz"
AUTHOR_SHAPE = {"vocab_size": 64, "dim": 32, "boom_dim": 128, "layers": 4, "memory": 40}
SHAPE = {"dim": 128, "boom_dim": 512, "layers": 2, "attention_layers": (0, 1), "memory": 96}
# Wide enough for the LSTM that cuDNN uses for the paper's width in float16, which needs a multiple
# of 128 and 8 streams: up to 192 it uses another one.
WIDE = {**SHAPE, "dim": 256, "boom_dim": 1024}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"memory_window": "sliding"},
    {"shifted_keys": True, "query_gain": 4.0, "lstm_skip": 0.5},
)
NOISE = 0.1
FLOAT32 = 5e-4  # difference relative to the largest number; sums are in another order
RESUMED = 0.01  # bits per byte; rounding grows from step to step
MIXED = 0.1  # nats; precisions round differently at every step


@dataclass(frozen=True)
class Check:
    """The result of one comparison.

    Args:
        name: what was compared.
        difference: the largest difference.
        tolerance: the largest difference that is accepted.
    """

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """True if the difference is accepted; False for NaN."""
        return self.difference <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for the results file."""
        return {**dataclasses.asdict(self), "passed": self.passed}


def correctness(plan: Plan) -> dict[str, Any]:
    """Makes all comparisons.

    One that raises an error counts as a difference of infinity, and the others go on.

    Returns:
        ``"checks"``, and ``"passed"``, True if all of them passed.
    """
    comparisons: dict[str, Callable[[Plan], Iterable[Check]]] = {
        "the author's numbers": author_numbers,
        "the CPU's numbers": cpu_numbers,
        "mixed precision": mixed_precision,
        "resumed runs": resumed_runs,
        "steps": stepped,
    }
    checks: list[Check] = []
    errors: dict[str, str] = {}
    # cuDNN's LSTM would round float32 products to TF32. Without enabled=True this would turn off
    # cuDNN itself.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name, compare in comparisons.items():
            try:
                checks += compare(plan)
            except Exception as error:  # whatever a new device may raise
                errors[name] = reason(error)
    return {
        "checks": [check.to_dict() for check in checks],
        "errors": errors,
        "passed": not errors and all(check.passed for check in checks),
    }


def relative(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference, divided by the largest expected number (at least 1e-6)."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def author_numbers(plan: Plan) -> Iterable[Check]:
    """Compares logits and gradients with those of the author's code, beyond a full memory."""
    with np.load(AUTHOR) as file:
        numbers = {name: file[name] for name in file.files if name != "meta"}
    golden = {name: torch.from_numpy(array) for name, array in numbers.items()}
    model = sharnn.SHARNN(
        sharnn.ModelConfig.from_dict({**AUTHOR_SHAPE, "attention_layers": (2,), "dropout": 0.0})
    )
    model.load_state_dict(sharnn.from_reference(starting_with("param/", golden)))
    model.to(plan.device)
    state, logits_gap, gradient_gap = None, 0.0, 0.0
    for segment in range(5):
        prefix = f"seg{segment}/"
        x, y, expected = (golden[prefix + name].transpose(0, 1) for name in ("x", "y", "logits"))
        logits, state = model(x.to(plan.device), state)
        logits_gap = max(logits_gap, relative(logits, expected))
        theirs = starting_with(f"{prefix}grad/", golden)
        if theirs:
            model.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), y.flatten().to(plan.device)).backward()
            gradient_gap = max(gradient_gap, gradients_gap(model, sharnn.from_reference(theirs)))
    yield Check("the author's logits", logits_gap, FLOAT32)
    yield Check("the author's gradients", gradient_gap, FLOAT32)


def starting_with(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors whose name starts with a prefix, by the rest of their name."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def gradients_gap(model: sharnn.SHARNN, expected: Mapping[str, Tensor]) -> float:
    """Returns the largest relative difference of a model's gradients from those by name."""
    return max(
        relative(parameter.grad, expected[name])
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    )


def cpu_numbers(plan: Plan) -> Iterable[Check]:
    """Compares logits, states and gradients with the CPU's, segment by segment."""
    for options in OPTIONS:
        ours = model_of(**options)
        theirs = copy.deepcopy(ours).to(plan.device)
        our_state = their_state = None
        gaps = {"logits": 0.0, "gradients": 0.0, "state": 0.0}
        for x in torch.randint(256, (2, 200)).split(40, dim=1):
            expected, our_state = ours(x, our_state)
            logits, their_state = theirs(x.to(plan.device), their_state)
            gaps["logits"] = max(gaps["logits"], relative(logits, expected))
            for model, output in ((ours, expected), (theirs, logits)):
                model.zero_grad()
                target = x.roll(-1, dims=1).flatten().to(output.device)
                F.cross_entropy(output.flatten(0, 1), target).backward()
            gradients = {
                name: parameter.grad
                for name, parameter in ours.named_parameters()
                if parameter.grad is not None
            }
            gaps["gradients"] = max(gaps["gradients"], gradients_gap(theirs, gradients))
        assert our_state is not None
        assert their_state is not None
        expected_state, found = our_state.to_tensors(), their_state.to_tensors()
        gaps["state"] = max(relative(found[name], expected_state[name]) for name in expected_state)
        title = ", ".join(f"{name} {value}" for name, value in options.items()) or "the paper's"
        for name, gap in gaps.items():
            yield Check(f"the CPU's {name} ({title})", gap, FLOAT32)


def model_of(**changes: Any) -> sharnn.SHARNN:
    """Returns a small model, with noise added to its weights so that each of them matters."""
    torch.manual_seed(1)
    values = {**SHAPE, "vocab_size": 256, "dropout": 0.0, **changes}
    model = sharnn.SHARNN(sharnn.ModelConfig.from_dict(values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(NOISE * torch.randn(parameter.shape))
    return model


def losses(plan: Plan, precision: str, steps: int) -> list[float]:
    """Trains a small model and returns the losses of its steps, in nats per byte."""
    torch.manual_seed(2)
    config = sharnn.ModelConfig.from_dict({**WIDE, "vocab_size": 256, "dropout": 0.0})
    trainer = Trainer(sharnn.SHARNN(config), plan.corpus(), small_recipe(plan, precision=precision))
    found: list[float] = []
    while len(found) < steps:
        result = trainer.step()
        if not result.skipped:  # loss scaling skips the first steps until its scale fits
            found.append(result.loss)
    return found


def small_recipe(plan: Plan, **changes: Any) -> sharnn.Recipe:
    """Returns the recipe of the small models of this step."""
    recipe = sharnn.Recipe(
        steps=1000,
        batch_size=8,
        segment_length=32,
        warmup_steps=10,
        segment_jitter=0.0,
        short_segments=0.0,
        eval_bytes=2000,
        device=plan.device,
        precision="float32",
    )
    return dataclasses.replace(recipe, **changes)


def mixed_precision(plan: Plan) -> Iterable[Check]:
    """Compares the losses of a short training run in each precision with float32."""
    steps = 20 if plan.tiny else 100
    expected = losses(plan, "float32", steps)
    for precision in plan.precisions:
        if precision != "float32":
            found = losses(plan, precision, steps)
            last = steps // 4
            gap = abs(sum(found[-last:]) - sum(expected[-last:])) / last
            yield Check(f"loss in {precision} after {steps} steps", gap, MIXED)
    yield Check("last loss of a training run minus its first", expected[-1] - expected[0], -0.5)


def resumed_runs(plan: Plan) -> Iterable[Check]:
    """Compares a run that moves from the CPU to the device and back with an uninterrupted one."""
    config = sharnn.ModelConfig.from_dict({**SHAPE, "vocab_size": 256, "dropout": 0.0})
    corpus, recipe = plan.corpus(), small_recipe(plan, device="cpu", steps=4, log_every=1)
    with tempfile.TemporaryDirectory() as folder:
        whole, moved = Path(folder) / "whole", Path(folder) / "moved"
        expected = sharnn.train(
            config, corpus, dataclasses.replace(recipe, steps=12), whole, progress_bar=False
        )
        sharnn.train(config, corpus, recipe, moved, progress_bar=False)
        for steps, device in ((8, plan.device), (12, "cpu")):
            changes = {"steps": steps, "device": device}
            found = sharnn.resume(moved, corpus, changes, progress_bar=False)
    key = "valid_bits_per_byte"
    gap = abs(found.metrics[-1][key] - expected.metrics[-1][key])
    yield Check(f"bits per byte after CPU, {plan.device}, CPU", gap, RESUMED)


def stepped(plan: Plan) -> Iterable[Check]:
    """Compares steps of one byte with the whole text at once, beyond a full memory.

    The captured step takes over when the memory is full, and overwrites all of it.
    """
    model = model_of(memory_window="sliding").to(plan.device).eval()
    x = torch.randint(256, (2, 200), device=plan.device)
    with torch.no_grad():
        whole, _ = model(x)  # (batch, time, vocab_size)
        stepper, other = sharnn.Stepper(model, 2), sharnn.Stepper(model, 2)
        state, steps, packed, graph = None, [], [], []
        full = model.config.memory
        for symbols in x[:, :full].unbind(1):
            other.step(symbols)
        captured = CapturedStepper(other)
        for position, symbols in enumerate(x.unbind(1)):
            logits, state = model.step(symbols, state)
            steps.append(logits)
            packed.append(stepper.step(symbols))
            if position >= full:
                graph.append(captured.step(symbols).clone())  # the next step overwrites it
    yield Check("step by step", relative(torch.stack(steps, 1), whole), FLOAT32)
    yield Check("Stepper", relative(torch.stack(packed, 1), whole), FLOAT32)
    gap = relative(torch.stack(graph, 1), whole[:, full:])
    yield Check("Stepper, captured", gap, FLOAT32)
