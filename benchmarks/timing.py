"""Repeated measurements, their spread, and ratios of cases that were measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, minimum, maximum and number of repeated measurements.

    Args:
        values: one number for each repeat.
    """
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "repeats": len(values),
    }


def seconds_of(work: Callable[[], Any]) -> float:
    """Calls a function and returns the seconds it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(
    measures: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Measures several cases in turns, A B A B, so that a disturbance affects all of them.

    Args:
        measures: by name, a function that measures once and returns a number.
        repeats: number of measurements of each case.
        warm_up: number of rounds before them, whose results are discarded.

    Returns:
        The measurements by name.
    """
    numbers: dict[str, list[float]] = {name: [] for name in measures}
    for round_ in range(warm_up + repeats):
        for name, measure in measures.items():
            number = measure()
            if round_ >= warm_up:
                numbers[name].append(number)
    return numbers


def compare(
    numbers: Mapping[str, Sequence[float]], baseline: str, unit: str, better: str
) -> dict[str, Any]:
    """Compares each case with a baseline, by the ratios within each round.

    Args:
        numbers: returned by `in_turns`.
        baseline: name of the case that the others are divided by.
        unit: unit of the numbers.
        better: ``"more"`` or ``"less"``.

    Returns:
        The entry for the results file.
    """
    cases = {}
    for name, values in numbers.items():
        ratios = [a / b for a, b in zip(values, numbers[baseline], strict=True)]
        cases[name] = {"measured": spread(values), "ratio": spread(ratios)}
    return {"unit": unit, "better": better, "baseline": baseline, "cases": cases}
