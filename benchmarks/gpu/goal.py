"""The goal of a first GPU, an H100 or H200, and what a run of the steps found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.training import PLAIN

RATE = 650_000  # bytes a second: 25 epochs of enwik8 in under an hour
SPEEDUP = 3.0  # over the author's arrangement


def goals(steps: dict[str, Any]) -> list[tuple[str, float, float | None]]:
    """Returns for each goal its name, the number wanted, and the number found, or None.

    Args:
        steps: the steps of the results file.

    Example:
        >>> goals({"paper": {"result": {"rate": 700_000.0}}})[0]
        ("bytes a second of the paper's run", 650000, 700000.0)
    """
    paper = steps.get("paper", {}).get("result")
    training = steps.get("training", {}).get("result")
    ways = training and training["ways"]
    speedup = None
    if ways and ways["baseline"] == PLAIN and training["library"] in ways["cases"]:
        speedup = ways["cases"][training["library"]]["ratio"]["median"]
    return [
        ("bytes a second of the paper's run", RATE, paper and paper["rate"]),
        (f"speed in relation to {PLAIN}", SPEEDUP, speedup),
    ]


def goal_lines(steps: dict[str, Any]) -> Iterator[str]:
    """Yields one line for each goal."""
    for name, wanted, found in goals(steps):
        outcome = "not measured"
        if found is not None:
            outcome = f"{found:,.6g}, {'reached' if found >= wanted else 'missed'}"
        yield f"goal for an H100: {name} at least {wanted:,.6g}: {outcome}"
