"""The tables of the race, made from the numbers in its results file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sharnn
from benchmarks.race_report import PARTS, Result
from benchmarks.race_search import results_at
from benchmarks.race_settings import Race, Setting

Row = dict[str, Any]


def result_rows(results: Sequence[Result]) -> Iterator[list[str]]:
    """Yields the cells of the main table; see `HEADER`."""
    for result in results:
        row = result.rows[0]
        yield [
            result.contender.name,
            f"{result.setting.lr:g}; {result.setting.batch_size} x {result.setting.length}",
            f"{row['parameters']:,}",
            f"{row['bytes_read'] / 1e6:.2f}",
            "-" if result.peak_bytes is None else f"{result.peak_bytes / 1e6:,.0f}",
            result.shown("valid"),
            result.shown("test"),
        ]


HEADER = [
    "contender",
    "learning rate; batch x length",
    "parameters",
    "read (MB)",
    "peak memory (MB)",
    "validation bits per byte",
    "test bits per byte",
]


def search_rows(race: Race, rows: Iterable[Row]) -> Iterator[list[str]]:
    """Yields the cells of the table of searches and checks; see `SEARCH_HEADER`.

    The best setting of each contender's search comes first.
    """
    runs = [row for row in rows if row["kind"] == "run"]
    for contender in race.contenders:
        results = results_at(race, "search", contender, runs)
        checks = results_at(race, "check", contender, runs)
        settings = sorted({**checks, **results}, key=lambda one: results.get(one, math.inf))
        for setting in settings:
            shape = f"{setting.batch_size} x {setting.length}"
            bits = [_shown_at(setting, found) for found in (results, checks)]
            yield [contender.name, f"{setting.lr:g}", shape, *bits]


def _shown_at(setting: Setting, results: Mapping[Setting, float]) -> str:
    if setting not in results:
        return ""
    return f"{results[setting]:.3f}" if math.isfinite(results[setting]) else "diverged"


SEARCH_HEADER = ["contender", "learning rate", "batch x length", "search", "check"]


def trial_rows(race: Race, rows: Iterable[Row]) -> Iterator[list[str]]:
    """Yields the cells of the table of trials that have a run; see `TRIAL_HEADER`."""
    runs = [row for row in rows if row["kind"] == "run"]
    for trial in race.trials:
        found = [row for row in runs if (row["stage"], row["contender"]) == ("trial", trial.name)]
        if not found:
            continue
        bits = [math.inf if row["valid"] is None else row["valid"] for row in found]
        shown = f"{statistics.fmean(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})"
        if not all(map(math.isfinite, bits)):
            shown = f"{sum(map(math.isinf, bits))} of {len(bits)} diverged"
        seeds = ", ".join(str(row["seed"]) for row in sorted(found, key=lambda row: row["seed"]))
        assert trial.compared_with is not None
        other = race.contender(trial.compared_with)
        reference = _shown_at(trial.start, results_at(race, "search", other, runs))
        yield [trial.name, shown, seeds, other.name, reference]


TRIAL_HEADER = ["trial", "validation", "seeds", "compared with", "its validation"]


def record_rows(records: Sequence[Mapping[str, Any]], rows: Iterable[Row]) -> Iterator[list[str]]:
    """Yields the cells of the log of records; see `RECORD_HEADER`.

    Args:
        records: the entries of ``records.json``, the oldest first.
        rows: the lines of the results file, which has their runs.

    Raises:
        sharnn.InputError: a record names a run that is not in the results file.
    """
    by_name = {row["name"]: row for row in rows if row["kind"] == "run"}
    for record in records:
        unknown = [name for name in record["runs"] if name not in by_name]
        if unknown or not record["runs"]:
            raise sharnn.InputError(f"the record {record['record']!r} has no run {unknown[:1]}")
        found = [by_name[name] for name in record["runs"]]
        cells = []
        for part in PARTS:
            bits = [row.get(part) for row in found]
            known = [value for value in bits if value is not None]
            cells.append(f"{statistics.fmean(known):.3f}" if len(known) == len(bits) else "")
        runs = f"{found[0]['contender']}, {len(found)} seed{'s' if len(found) > 1 else ''}"
        commits = dict.fromkeys(f"`{row['machine']['commit']}`" for row in found)
        yield [record["record"], record["change"], *cells, runs, ", ".join(commits)]


RECORD_HEADER = ["record", "change", "validation", "test", "runs", "commits"]
