"""Growth of time and peak memory with the length of the model's memory and of the file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sharnn
from benchmarks.speed import measure_cases, small_config
from benchmarks.timing import spread

BATCH, SEGMENT = 4, 128


def fit_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fits a straight line to points by least squares.

    Args:
        x, y: coordinates of the points.

    Returns:
        Slope and intercept, the residual (root mean square, as a fraction of the mean of y), and
        the fraction of the variance of y that the line explains.
    """
    slope, intercept = np.polyfit(x, y, 1)
    residuals = np.asarray(y) - (slope * np.asarray(x) + intercept)
    variance = float(np.var(y))
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "residual": float(np.sqrt(np.mean(residuals**2)) / np.mean(y)),
        "explained": 1 - float(np.var(residuals)) / variance if variance else 1.0,
    }


def curve(
    cases: Mapping[int, tuple[str, dict[str, Any]]], amount: int, threads: int, quick: bool
) -> dict[str, Any]:
    """Measures the time and peak memory of one case at several lengths.

    One line is fitted to the shortest times and one to the peaks. Other programs on the machine
    can only make a step longer, so the shortest time is the best estimate.

    Args:
        cases: for each length, the name of a case of `benchmarks.cases` and its settings.
        amount: number of bytes in one step; the cases measure bytes per second.
        threads, quick: see `benchmarks.speed.measure_cases`.

    Returns:
        The entry for the results file.
    """
    named = {str(length): case for length, case in cases.items()}
    numbers, facts = measure_cases(named, threads, quick)
    seconds = {length: [amount / rate for rate in rates] for length, rates in numbers.items()}
    peaks = [facts[length]["peak"]["bytes"] for length in named]
    lengths = list(cases)
    shortest = seconds[str(lengths[0])]
    return {
        "lengths": lengths,
        "seconds": [spread(seconds[length]) for length in named],
        # Ratios within a round: a disturbance that slows both cancels.
        "ratio_to_shortest": [
            spread([a / b for a, b in zip(seconds[length], shortest, strict=True)])
            for length in named
        ],
        "peak_bytes": peaks,
        "peak_ratio_to_shortest": [peak / peaks[0] for peak in peaks],
        "time_line": fit_line(lengths, [min(seconds[length]) for length in named]),
        "peak_line": fit_line(lengths, peaks),
    }


def over_memory(
    base: sharnn.ModelConfig, lengths: Sequence[int], threads: int, quick: bool
) -> dict[str, Any]:
    """Measures a training step and a written byte against the length of a full memory.

    Args:
        base: the model's configuration; its ``memory`` is replaced by each length.
        lengths: numbers of rows of the memory.
        threads, quick: see `benchmarks.speed.measure_cases`.

    Returns:
        The entry for the results file.
    """
    models = {n: {**base.to_dict(), "memory": n} for n in lengths}
    segment = min(SEGMENT, lengths[0] // 2)
    recipe = {"batch_size": BATCH, "segment_length": segment}
    shared = {"recipe": recipe, "precision": "auto", "min_seconds": 0.02 if quick else 1.0}
    steps: dict[int, tuple[str, dict[str, Any]]] = {
        n: ("train", {"kind": "library", "model": model, "sample_size": 50_000, **shared})
        for n, model in models.items()
    }
    bytes_: dict[int, tuple[str, dict[str, Any]]] = {
        n: (
            "write",
            {"kind": "step", "model": model, "batch": 1, "min_seconds": 0.02 if quick else 1.0},
        )
        for n, model in models.items()
    }
    return {
        "model": base.to_dict(),
        "recipe": recipe,
        "training_step": curve(steps, BATCH * segment, threads, quick),
        "written_byte": curve(bytes_, 1, threads, quick),
    }


def over_file(
    base: sharnn.ModelConfig, lengths: Sequence[int], threads: int, quick: bool
) -> dict[str, Any]:
    """Measures a training step against the length of the training file.

    Args:
        base: the model's configuration.
        lengths: lengths of the file, in bytes.
        threads, quick: see `benchmarks.speed.measure_cases`.

    Returns:
        The entry for the results file.
    """
    segment = min(SEGMENT, base.memory // 2)
    recipe = {"batch_size": BATCH, "segment_length": segment}
    shared = {"recipe": recipe, "precision": "auto", "min_seconds": 0.02 if quick else 1.0}
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[int, tuple[str, dict[str, Any]]] = {}
        for length in lengths:
            path = Path(folder) / f"{length}.txt"
            write_text(path, length)
            settings = {"kind": "library", "model": base.to_dict(), "data": str(path), **shared}
            cases[length] = ("train", settings)
        steps = curve(cases, BATCH * segment, threads, quick)
    return {"model": base.to_dict(), "recipe": recipe, "training_step": steps}


def write_text(path: Path, length: int) -> None:
    """Writes a file of ``length`` bytes of the generated sample, repeated as needed."""
    text = sharnn.load_corpus("sample", sample_size=50_000).train[:].tobytes()
    with open(path, "wb") as file:
        for start in range(0, length, len(text)):
            file.write(text[: length - start])


def curves(threads: int, quick: bool) -> dict[str, Any]:
    """Measures both kinds of growth.

    Args:
        threads: number of threads of each process.
        quick: True for small models and few repeats, to test the harness.

    Returns:
        The entry for the results file.
    """
    if quick:
        small = small_config()
        return {
            "over_memory": over_memory(small, (64, 128), threads, quick),
            "over_file": over_file(small, (2**14, 2**16), threads, quick),
        }
    base = sharnn.ModelConfig.preset("small")
    megabytes = [n * 10**6 for n in (1, 4, 16, 64)]
    return {
        "over_memory": over_memory(base, (500, 1000, 2000, 4000, 8000), threads, quick),
        "over_file": over_file(base, megabytes, threads, quick),
    }
