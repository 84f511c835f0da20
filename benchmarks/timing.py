"""Repeats, their spread, and the ratio of two things that were measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest and highest of some repeats, and how many there were.

    Args:
        values: one number of each repeat.

    Returns:
        What the results file holds of them.
    """
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "repeats": len(values),
    }


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds that a call takes.

    Args:
        work: what to call.

    Returns:
        The seconds.
    """
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(
    measures: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Measures several things in turns, A B A B, so that a busy moment meets all of them.

    Args:
        measures: for each name a function that measures once and returns a number.
        repeats: numbers wanted of each.
        warm_up: rounds that are thrown away first.

    Returns:
        The numbers of each name.
    """
    numbers: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(warm_up + repeats):
        for name, measure in measures.items():
            number = measure()
            if turn >= warm_up:
                numbers[name].append(number)
    return numbers


def compared(
    numbers: Mapping[str, Sequence[float]], baseline: str, unit: str, better: str
) -> dict[str, Any]:
    """What was measured of each name, and its ratio to the baseline's, turn by turn.

    Args:
        numbers: what `in_turns` returned.
        baseline: the name that all are divided by.
        unit: of the numbers.
        better: ``"more"`` or ``"less"``.

    Returns:
        What the results file holds of it.
    """
    cases = {}
    for name, values in numbers.items():
        ratios = [a / b for a, b in zip(values, numbers[baseline], strict=True)]
        cases[name] = {"measured": spread(values), "ratio": spread(ratios)}
    return {"unit": unit, "better": better, "baseline": baseline, "cases": cases}
