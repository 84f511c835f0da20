"""How time and memory grow: with the length of the memory, and with the length of the file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sharnn
from benchmarks.speed import measured, small_shape
from benchmarks.timing import spread

BATCH, SEGMENT = 4, 128


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The straight line of least squares through some points.

    Args:
        x, y: the points.

    Returns:
        Its slope and intercept, the residual (root of the mean square, as a share of the mean of
        y), and the share of the variance of y that the line explains.
    """
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (slope * np.asarray(x) + intercept)
    variance = float(np.var(y))
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "residual": float(np.sqrt(np.mean(rest**2)) / np.mean(y)),
        "explained": 1 - float(np.var(rest)) / variance if variance else 1.0,
    }


def curve(
    cases: Mapping[int, tuple[str, dict[str, Any]]], amount: int, threads: int, repeats: int
) -> dict[str, Any]:
    """Seconds and peak memory of one case at several lengths, measured in turns.

    Args:
        cases: for each length a case of `benchmarks.cases` and its settings.
        amount: bytes of one step; the cases count bytes a second.
        threads, repeats: see `benchmarks.speed.measured`.

    Returns:
        What the results file holds of it: the points, and a line through the least times and one
        through the peaks. Other programs can only make a step longer, so the least time counts.
    """
    named = {str(length): case for length, case in cases.items()}
    numbers, facts = measured(named, threads, repeats)
    seconds = {length: [amount / rate for rate in rates] for length, rates in numbers.items()}
    peaks = [facts[length]["peak"]["bytes"] for length in named]
    lengths = list(cases)
    shortest = seconds[str(lengths[0])]
    return {
        "lengths": lengths,
        "seconds": [spread(seconds[length]) for length in named],
        # Turn by turn, so that what slows both leaves it as it is.
        "ratio_to_shortest": [
            spread([a / b for a, b in zip(seconds[length], shortest, strict=True)])
            for length in named
        ],
        "peak_bytes": peaks,
        "peak_ratio_to_shortest": [peak / peaks[0] for peak in peaks],
        "time_line": line(lengths, [min(seconds[length]) for length in named]),
        "peak_line": line(lengths, peaks),
    }


def over_memory(
    base: sharnn.ModelConfig, lengths: Sequence[int], least: float, threads: int, repeats: int
) -> dict[str, Any]:
    """A training step and a written byte against the length of a full memory.

    Args:
        base: the model, whose memory is changed.
        lengths: lengths of the memory.
        least: seconds of one measurement.
        threads, repeats: see `benchmarks.speed.measured`.

    Returns:
        What the results file holds of it.
    """
    models = {n: {**base.to_dict(), "memory": n} for n in lengths}
    segment = min(SEGMENT, lengths[0] // 2)
    recipe = {"batch_size": BATCH, "segment_length": segment}
    shared = {"recipe": recipe, "precision": "auto", "least_seconds": least}
    steps: dict[int, tuple[str, dict[str, Any]]] = {
        n: ("train", {"kind": "library", "model": model, "sample_size": 50_000, **shared})
        for n, model in models.items()
    }
    bytes_: dict[int, tuple[str, dict[str, Any]]] = {
        n: ("write", {"kind": "step", "model": model, "batch": 1, "least_seconds": least})
        for n, model in models.items()
    }
    return {
        "model": base.to_dict(),
        "recipe": recipe,
        "training_step": curve(steps, BATCH * segment, threads, repeats),
        "written_byte": curve(bytes_, 1, threads, repeats),
    }


def over_file(
    base: sharnn.ModelConfig, lengths: Sequence[int], least: float, threads: int, repeats: int
) -> dict[str, Any]:
    """A training step against the length of the file that it learns from.

    Args:
        base: the model.
        lengths: lengths of the file, in bytes.
        least, threads, repeats: see `over_memory`.

    Returns:
        What the results file holds of it.
    """
    segment = min(SEGMENT, base.memory // 2)
    recipe = {"batch_size": BATCH, "segment_length": segment}
    shared = {"recipe": recipe, "precision": "auto", "least_seconds": least}
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[int, tuple[str, dict[str, Any]]] = {}
        for length in lengths:
            path = Path(folder) / f"{length}.txt"
            write_text(path, length)
            settings = {"kind": "library", "model": base.to_dict(), "data": str(path), **shared}
            cases[length] = ("train", settings)
        steps = curve(cases, BATCH * segment, threads, repeats)
    return {"model": base.to_dict(), "recipe": recipe, "training_step": steps}


def write_text(path: Path, length: int) -> None:
    """Writes a file of generated text.

    Args:
        path: the file.
        length: its bytes.
    """
    text = sharnn.load_corpus("sample", sample_size=50_000).train[:].tobytes()
    with open(path, "wb") as file:
        for start in range(0, length, len(text)):
            file.write(text[: length - start])


def curves(threads: int, quick: bool) -> dict[str, Any]:
    """Measures both.

    Args:
        threads: threads of each process.
        quick: small models and few repeats, to test the harness.

    Returns:
        What the results file holds of it.
    """
    if quick:
        small = small_shape()
        return {
            "over_memory": over_memory(small, (64, 128), 0.02, threads, 2),
            "over_file": over_file(small, (2**14, 2**16), 0.02, threads, 2),
        }
    base = sharnn.ModelConfig.preset("small")
    megabytes = [n * 10**6 for n in (1, 4, 16, 64)]
    return {
        "over_memory": over_memory(base, (500, 1000, 2000, 4000, 8000), 1.0, threads, 7),
        "over_file": over_file(base, megabytes, 1.0, threads, 7),
    }
