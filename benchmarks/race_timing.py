"""The budget of the race: how many steps of a setting take the track's time on a quiet machine.

Other programs can double the duration of a step, so a run that is limited by a clock has no result
that can be repeated. Instead, every setting gets a fixed number of steps. The duration of a step of
the *reference*, the preset ``small`` without a head, is measured once, on a quiet machine. Another
setting's duration is measured relative to it: its steps alternate with the reference's in one
process, so that other work disturbs both, and the quickest steps of each are compared.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import sharnn
from benchmarks.machine import machine
from benchmarks.race_models import Entry, prepare
from benchmarks.race_settings import REFERENCE, Contender, Race, Setting

QUANTILE = 0.1  # other programs can only make a step longer
WARM_UP = 2  # steps that are not counted
QUIET_LOAD = 1.0  # average number of running processes before the measurement
Row = dict[str, Any]


def low(times: Sequence[float]) -> float:
    """Returns the low quantile of durations that estimates the time on a quiet machine.

    Example:
        >>> low([5.0, 1.0, 2.0, 9.0])
        1.0
    """
    return sorted(times)[int(QUANTILE * len(times))]


def load() -> float:
    """Returns the average number of running processes during the last minute; 0 if unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def step_ms(entry: Entry) -> float:
    """Takes a step and returns the CPU time it took, in milliseconds."""
    start = time.process_time()
    entry.trainer.step()
    return round(1000 * (time.process_time() - start), 3)


def measure_reference(race: Race, corpus: sharnn.Corpus, busy: bool) -> Row:
    """Measures the duration of a step of the reference.

    Args:
        race: the race.
        corpus: the data.
        busy: measure even if other programs are running.

    Returns:
        The line for the results file.

    Raises:
        sharnn.InputError: the machine has other work, and ``busy`` is False.
    """
    before = load()
    if before >= QUIET_LOAD and not (busy or race.quick):
        raise sharnn.InputError(
            f"this machine has other work (load {before:.1f}): measure the reference when it is "
            "quiet, or with --busy"
        )
    entry = prepare(race, REFERENCE, reference_setting(race), corpus, for_timing=True)
    begin, count = time.perf_counter(), 8 if race.quick else 40
    times = [step_ms(entry) for _ in range(WARM_UP + count)][WARM_UP:]
    return {
        "kind": "reference",
        "seconds": low(times) / 1000,
        "ms": times,
        "wall_per_cpu": round(1000 * (time.perf_counter() - begin) / sum(times), 2),
        "load": round(before, 2),
        "quiet": before < QUIET_LOAD,
        "machine": machine(),
    }


def measure_timing(
    race: Race, contender: Contender, setting: Setting, corpus: sharnn.Corpus
) -> Row:
    """Compares the duration of a setting's step with the reference's, in turns.

    Returns:
        The line for the results file.

    Raises:
        sharnn.InputError: see `prepare`.
    """
    reference = prepare(race, REFERENCE, reference_setting(race), corpus, for_timing=True)
    entry = prepare(race, contender, setting, corpus, for_timing=True)
    count = WARM_UP + (4 if race.quick else 12)
    pairs = [(step_ms(reference), step_ms(entry)) for _ in range(count)][WARM_UP:]
    return {
        "kind": "timing",
        "contender": contender.name,
        "length": setting.length,
        "step_bytes": setting.step_bytes,
        "reference_ms": [first for first, _ in pairs],
        "ms": [second for _, second in pairs],
        "load": round(load(), 2),
        "machine": machine(),
    }


def reference_setting(race: Race) -> Setting:
    """Returns the reference's setting: the preset's, or that of the quick race."""
    return race.contenders[0].start if race.quick else REFERENCE.start


def timings_of(rows: Iterable[Row], contender: str, setting: Setting) -> list[Row]:
    """Returns the timings of a contender at a setting's shape; the learning rate has no effect."""
    key = (contender, setting.length, setting.step_bytes)
    return [
        row
        for row in rows
        if row["kind"] == "timing" and (row["contender"], row["length"], row["step_bytes"]) == key
    ]


def ratio(timings: Sequence[Row]) -> float:
    """Returns how many times as long as the reference's a setting's step is."""
    own = [ms for row in timings for ms in row["ms"]]
    return low(own) / low([ms for row in timings for ms in row["reference_ms"]])


def round_ratios(timings: Sequence[Row]) -> list[float]:
    """Returns the ratio of each round by itself, which shows how well it is known."""
    return [ratio([row]) for row in timings]


def step_seconds(race: Race, rows: list[Row], contender: str, setting: Setting) -> float | None:
    """Returns the duration of a setting's step on a quiet machine, or None if it is not known yet.

    The first rounds count, so that the budget never changes once it is known.
    """
    references = [row for row in rows if row["kind"] == "reference"]
    timings = timings_of(rows, contender, setting)[: race.track.rounds]
    if not references or len(timings) < race.track.rounds:
        return None
    return references[0]["seconds"] * ratio(timings)


def budget(seconds: float, step: float) -> int:
    """Returns the number of steps that fit in a time, at least 1.

    Example:
        >>> budget(600, 0.25), budget(600, 0.36)
        (2400, 1666)
    """
    return max(1, math.floor(seconds / step + 1e-9))
