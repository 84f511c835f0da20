"""Speed and memory: the library against the plain implementation, and against the machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch

import sharnn
from benchmarks.timing import compared, in_turns, spread
from benchmarks.worker import Worker, environment
from benchmarks.writers import KINDS
from sharnn.precision import multiplies_bfloat16_fast

MEMORY = 5000  # rows of a full memory while writing


def measured(
    cases: Mapping[str, tuple[str, dict[str, Any]]], threads: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Measures cases in turns, each in a process of its own.

    Args:
        cases: for each name a case of `benchmarks.cases` and its settings.
        threads: threads of each process; they never work at the same time.
        repeats: numbers wanted of each.

    Returns:
        The numbers, and for each name the case's facts with its ``"peak"``.
    """
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(case, threads, **settings))
            for name, (case, settings) in cases.items()
        }
        numbers = in_turns({name: w.measure for name, w in workers.items()}, repeats)
        facts = {name: {**w.facts, "peak": w.peak()} for name, w in workers.items()}
    return numbers, facts


def peaks(facts: Mapping[str, dict[str, Any]], baseline: str) -> dict[str, Any]:
    """The most memory of each process, and its ratio to the baseline's.

    Args:
        facts: what `measured` returned.
        baseline: the name that all are divided by.

    Returns:
        What the results file holds of it.
    """
    least = facts[baseline]["peak"]["bytes"]
    cases = {
        name: {**f["peak"], "ratio": f["peak"]["bytes"] / least}
        for name, f in facts.items()
        if name != "product"
    }
    return {"unit": "B", "better": "less", "baseline": baseline, "cases": cases}


def training(preset: str, threads: int, quick: bool) -> dict[str, Any]:
    """Training speed, as a share of the machine's speed too, and peak memory.

    Args:
        preset: whose shape and dropout the model has.
        threads: threads.
        quick: a small model and short measurements.

    Returns:
        What the results file holds of it.
    """
    config = small_shape() if quick else sharnn.ModelConfig.preset(preset)
    least = 0.02 if quick else 1.5
    side = 256 if quick else 2048
    shared: dict[str, Any] = {"model": config.to_dict(), "recipe": {}, "least_seconds": least}
    precisions = ["float32"]
    if quick:
        shared["recipe"] = {"batch_size": 2, "segment_length": 16}
        shared["sample_size"] = 20_000
    elif multiplies_bfloat16_fast(torch.device("cpu")):
        precisions.append("bfloat16")
    cases: dict[str, tuple[str, dict[str, Any]]] = {}
    for precision in precisions:
        for kind in ("plain", "library"):
            settings = {"kind": kind, "precision": precision, **shared}
            cases[f"{kind}, {precision}"] = ("train", settings)
        product = {"precision": precision, "side": side, "least_seconds": min(least, 0.2)}
        cases[f"product, {precision}"] = ("product", product)
    if not quick:
        settings = {"kind": "library", "precision": "auto", **shared}
        cases["library, as it comes"] = ("train", settings)
    numbers, facts = measured(cases, threads, repeats=2 if quick else 7)
    rates = {name: numbers.pop(name) for name in list(numbers) if name.startswith("product")}
    facts = {name: facts[name] for name in numbers}
    result = compared(numbers, "plain, float32", "B/s", "more")
    for name, case in result["cases"].items():
        flops, precision = facts[name]["flops_per_byte"], facts[name]["precision"]
        limit = rates.get(f"product, {precision}")
        case["precision"], case["flops_per_byte"] = precision, flops
        if limit is not None:
            shares = [n * flops / r for n, r in zip(numbers[name], limit, strict=True)]
            case["share_of_matrix_rate"] = spread(shares)
    return {
        "model": config.to_dict(),
        "speed": result,
        "matrix_rate": {name: spread(values) for name, values in rates.items()},
        "peak_memory": peaks(facts, "plain, float32"),
    }


def scoring(preset: str, threads: int, quick: bool) -> dict[str, Any]:
    """Speed of scoring bytes.

    Args:
        preset, threads, quick: see `training`.

    Returns:
        What the results file holds of it.
    """
    config = small_shape() if quick else sharnn.ModelConfig.preset(preset)
    size = 500 if quick else 4 * config.memory
    cases = {
        kind: ("score", {"kind": kind, "model": config.to_dict(), "size": size})
        for kind in ("plain", "library")
    }
    numbers, _ = measured(cases, threads, repeats=2 if quick else 7)
    return {"model": config.to_dict(), "speed": compared(numbers, "plain", "B/s", "more")}


def writing(
    dim: int, batch: int, threads: int, quick: bool, kinds: tuple[str, ...] = KINDS
) -> dict[str, Any]:
    """Speed and peak memory of writing with a full memory.

    Args:
        dim: width of the model.
        batch: streams side by side.
        threads, quick: see `training`.
        kinds: ways to write.

    Returns:
        What the results file holds of it.
    """
    config = sharnn.ModelConfig(dim=dim, boom_dim=4 * dim, memory=MEMORY)
    if quick:
        config = small_shape()
    least = 0.02 if quick else 0.7
    cases = {
        kind: ("write", {"kind": kind, "model": config.to_dict(), "batch": batch}) for kind in kinds
    }
    for _, settings in cases.values():
        settings["least_seconds"] = least
    numbers, facts = measured(cases, threads, repeats=2 if quick else 7)
    return {
        "model": config.to_dict(),
        "batch": batch,
        "speed": compared(numbers, "plain", "B/s", "more"),
        "peak_memory": peaks(facts, "plain"),
    }


def importing(threads: int, quick: bool) -> dict[str, Any]:
    """Seconds until ``import sharnn`` is done, against ``import torch``.

    Args:
        threads, quick: see `training`.

    Returns:
        What the results file holds of it.
    """

    def seconds(module: str) -> float:
        script = (
            "import time; start = time.perf_counter(); "
            f"import {module}; print(time.perf_counter() - start)"
        )
        result = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=environment(threads),
        )
        return float(result.stdout)

    modules = {name: lambda name=name: seconds(name) for name in ("torch", "sharnn")}
    repeats, warm_up = (1, 0) if quick else (9, 1)
    return compared(in_turns(modules, repeats, warm_up), "torch", "s", "less")


def small_shape() -> sharnn.ModelConfig:
    """A model for a test of the harness."""
    return sharnn.ModelConfig(dim=32, boom_dim=128, layers=2, attention_layers=(1,), memory=64)


def speed(threads: int, quick: bool) -> dict[str, Any]:
    """Measures all of it.

    Args:
        threads: threads of each process.
        quick: small models and few repeats, to test the harness.

    Returns:
        What the results file holds of it.
    """
    presets = ("small",) if quick else ("small", "medium")
    widths = (256,) if quick else (256, 1024)
    batches = (2,) if quick else (1, 4, 16)
    kinds = KINDS[:2] if quick else KINDS
    return {
        "training": {name: training(name, threads, quick) for name in presets},
        "scoring": {name: scoring(name, threads, quick) for name in presets},
        "writing": [writing(dim, 1, threads, quick) for dim in widths],
        "writing_side_by_side": [writing(256, batch, threads, quick, kinds) for batch in batches],
        "import": importing(threads, quick),
    }
