"""Speed and peak memory of the library, compared with the plain implementation and the machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch

import sharnn
from benchmarks.timing import compare, in_turns, spread
from benchmarks.worker import LocalWorker, Worker, environment
from benchmarks.writers import KINDS
from sharnn.device import has_fast_bfloat16

MEMORY = 5000  # rows of the full memory while writing


def measure_cases(
    cases: Mapping[str, tuple[str, dict[str, Any]]], threads: int, quick: bool
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Measures cases in turns, each in its own process; all in this process if ``quick``.

    Args:
        cases: by name, a case of `benchmarks.cases` and its settings.
        threads: number of threads of each process; only one process works at a time.
        quick: True for 2 measurements of each case instead of 7.

    Returns:
        The measurements by name, and by name the facts of the case with its ``"peak"``.
    """
    with contextlib.ExitStack() as stack:
        workers = {
            name: LocalWorker(case, threads, **settings)
            if quick
            else stack.enter_context(Worker(case, threads, **settings))
            for name, (case, settings) in cases.items()
        }
        measures = {name: worker.measure for name, worker in workers.items()}
        numbers = in_turns(measures, repeats=2 if quick else 7)
        facts = {name: {**w.facts, "peak": w.peak()} for name, w in workers.items()}
    return numbers, facts


def compare_peaks(facts: Mapping[str, dict[str, Any]], baseline: str) -> dict[str, Any]:
    """Compares the peak memory of each process with the baseline's.

    Args:
        facts: returned by `measure_cases`.
        baseline: name of the case that the others are divided by.

    Returns:
        The entry for the results file.
    """
    reference = facts[baseline]["peak"]["bytes"]
    cases = {
        name: {**f["peak"], "ratio": f["peak"]["bytes"] / reference}
        for name, f in facts.items()
        if name != "product"
    }
    return {"unit": "B", "better": "less", "baseline": baseline, "cases": cases}


def training(preset: str, threads: int, quick: bool) -> dict[str, Any]:
    """Measures training speed, also as a fraction of the machine's, and peak memory.

    Args:
        preset: name of the model.
        threads: number of threads of each process.
        quick: True for a small model and short measurements.

    Returns:
        The entry for the results file.
    """
    config = small_config() if quick else sharnn.ModelConfig.preset(preset)
    min_seconds = 0.02 if quick else 1.5
    side = 256 if quick else 2048
    shared: dict[str, Any] = {
        "model": config.to_dict(),
        "recipe": {},
        "min_seconds": min_seconds,
    }
    precisions = ["float32"]
    if quick:
        shared["recipe"] = {"batch_size": 2, "segment_length": 16}
        shared["sample_size"] = 20_000
    elif has_fast_bfloat16(torch.device("cpu")):
        precisions.append("bfloat16")
    cases: dict[str, tuple[str, dict[str, Any]]] = {}
    for precision in precisions:
        for kind in ("plain", "library"):
            settings = {"kind": kind, "precision": precision, **shared}
            cases[f"{kind}, {precision}"] = ("train", settings)
        product = {"precision": precision, "side": side, "min_seconds": min(min_seconds, 0.2)}
        cases[f"product, {precision}"] = ("product", product)
    if not quick:
        settings = {"kind": "library", "precision": "auto", **shared}
        cases["library, as it comes"] = ("train", settings)
    numbers, facts = measure_cases(cases, threads, quick)
    rates = {name: numbers.pop(name) for name in list(numbers) if name.startswith("product")}
    facts = {name: facts[name] for name in numbers}
    result = compare(numbers, "plain, float32", "B/s", "more")
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
        "peak_memory": compare_peaks(facts, "plain, float32"),
    }


def scoring(preset: str, threads: int, quick: bool) -> dict[str, Any]:
    """Measures the speed of scoring.

    Args:
        preset, threads, quick: see `training`.

    Returns:
        The entry for the results file.
    """
    config = small_config() if quick else sharnn.ModelConfig.preset(preset)
    size = 500 if quick else 4 * config.memory
    cases = {
        kind: ("score", {"kind": kind, "model": config.to_dict(), "size": size})
        for kind in ("plain", "library")
    }
    numbers, _ = measure_cases(cases, threads, quick)
    return {"model": config.to_dict(), "speed": compare(numbers, "plain", "B/s", "more")}


def writing(
    dim: int, batch: int, threads: int, quick: bool, kinds: tuple[str, ...] = KINDS
) -> dict[str, Any]:
    """Measures the speed and peak memory of writing with a full memory.

    Args:
        dim: width of the model.
        batch: number of streams written in parallel.
        threads, quick: see `training`.
        kinds: some of `benchmarks.writers.KINDS`.

    Returns:
        The entry for the results file.
    """
    config = sharnn.ModelConfig(dim=dim, boom_dim=4 * dim, memory=MEMORY)
    if quick:
        config = small_config()
    min_seconds = 0.02 if quick else 0.7
    cases = {
        kind: ("write", {"kind": kind, "model": config.to_dict(), "batch": batch}) for kind in kinds
    }
    for _, settings in cases.values():
        settings["min_seconds"] = min_seconds
    numbers, facts = measure_cases(cases, threads, quick)
    return {
        "model": config.to_dict(),
        "batch": batch,
        "speed": compare(numbers, "plain", "B/s", "more"),
        "peak_memory": compare_peaks(facts, "plain"),
    }


def importing(threads: int, quick: bool) -> dict[str, Any]:
    """Measures the seconds that ``import sharnn`` takes, compared with ``import torch``.

    Args:
        threads, quick: see `training`.

    Returns:
        The entry for the results file.
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
    return compare(in_turns(modules, repeats, warm_up), "torch", "s", "less")


def small_config() -> sharnn.ModelConfig:
    """Returns a small configuration for tests of the harness."""
    return sharnn.ModelConfig(dim=32, boom_dim=128, layers=2, attention_layers=(1,), memory=64)


def speed(threads: int, quick: bool) -> dict[str, Any]:
    """Measures training, scoring, writing and the import.

    Args:
        threads: number of threads of each process.
        quick: True for small models and few repeats, to test the harness.

    Returns:
        The entry for the results file.
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
