"""The results of the race as tables and sentences, made from the numbers in its results file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sharnn
from benchmarks.race_search import best_setting, edges, is_settled, run_of, search_results
from benchmarks.race_settings import Contender, Race, Setting, make_race

PARTS = {"valid": "validation", "test": "test"}
AXES = {"lr": "learning rate", "length": "length", "step_bytes": "bytes in a step"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The final runs of a contender, one for each seed.

    Args:
        contender: the contender.
        setting: its best setting.
        rows: the runs, in the order of their seeds.
    """

    contender: Contender
    setting: Setting
    rows: tuple[Row, ...]

    def bits(self, part: str) -> list[float]:
        """Returns the bits per byte of each seed; inf for a run that diverged."""
        return [math.inf if row[part] is None else row[part] for row in self.rows]

    def mean(self, part: str) -> float:
        """Returns the mean over the seeds."""
        return statistics.fmean(self.bits(part))

    def deviation(self, part: str) -> float:
        """Returns the standard deviation over the seeds; inf if one diverged."""
        bits = self.bits(part)
        return statistics.stdev(bits) if all(map(math.isfinite, bits)) else math.inf

    def shown(self, part: str) -> str:
        """Formats the mean, the extremes and the standard deviation."""
        bits = self.bits(part)
        if not all(map(math.isfinite, bits)):
            return f"{sum(map(math.isinf, bits))} of {len(bits)} diverged"
        return (
            f"**{self.mean(part):.3f}** ({min(bits):.3f} to {max(bits):.3f}; "
            f"sd {self.deviation(part):.3f})"
        )


def race_of(rows: Sequence[Row]) -> Race:
    """Returns the race whose results file has these lines."""
    return make_race(bool(rows) and rows[0]["quick"])


def results_of(race: Race, rows: Iterable[Row]) -> list[Result]:
    """Returns the contenders whose search and final runs are complete, the best first.

    Args:
        race: the race.
        rows: the lines of the results file.
    """
    runs = [row for row in rows if row["kind"] == "run"]
    found = []
    for contender in race.contenders:
        results = search_results(race, contender, runs)
        if len(results) < race.search_size:
            continue
        best = best_setting(results)
        by_seed = {
            row["seed"]: row
            for row in runs
            if (row["stage"], row["contender"]) == ("final", contender.name)
            and run_of(row).setting == best
        }
        if by_seed.keys() >= set(race.seeds):
            found.append(Result(contender, best, tuple(by_seed[seed] for seed in race.seeds)))
    return sorted(found, key=lambda result: result.mean("valid"))


def compare(first: Result, second: Result, part: str) -> str:
    """Returns a sentence that compares two contenders.

    A difference counts as shown if the extremes of the seeds do not overlap, and if it exceeds two
    standard errors.

    Args:
        first, second: the contenders.
        part: ``"valid"`` or ``"test"``.
    """
    one, other = first.bits(part), second.bits(part)
    names = first.contender.name, second.contender.name
    apart = second.mean(part) - first.mean(part)
    if not math.isfinite(apart):
        return f"On {PARTS[part]}, {names[0]} and {names[1]} can't be compared: a run diverged."
    spreads = [result.deviation(part) ** 2 / len(result.rows) for result in (first, second)]
    error = 2 * math.sqrt(sum(spreads))
    overlap = min(one) <= max(other) and min(other) <= max(one)
    if overlap or abs(apart) <= error:
        return (
            f"On {PARTS[part]}, no difference between {names[0]} and {names[1]} was shown: "
            f"{first.mean(part):.3f} and {second.mean(part):.3f} bits per byte."
        )
    ahead, behind = names if apart > 0 else names[::-1]
    return (
        f"On {PARTS[part]}, {ahead} is ahead of {behind} by {abs(apart):.3f} ± {error:.3f} bits "
        "per byte."
    )


def rivals(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Returns the pairs that matter: the best model with a head, with each best one without.

    The best of a kind is the one with the lowest mean on validation data.
    """
    kinds: dict[str, Result] = {}
    for result in results:  # the best first
        kinds.setdefault(_kind(result.contender), result)
    head = kinds.get("head")
    if head is None:
        return []
    return [(head, kinds[kind]) for kind in ("no head", "Transformer") if kind in kinds]


def _kind(contender: Contender) -> str:
    if contender.transformer is not None:
        return "Transformer"
    return "head" if contender.has_head else "no head"


def verdicts(results: Sequence[Result]) -> list[str]:
    """Returns the sentences that say who is ahead, on validation and on test data."""
    if len(results) < 2:
        return []
    lines = []
    for part, title in PARTS.items():
        best = min(results, key=lambda result: result.mean(part))
        lines.append(
            f"The lowest mean on {title} is that of {best.contender.name}: "
            f"{best.mean(part):.3f} bits per byte."
        )
    lines += [compare(*pair, part) for pair in rivals(results) for part in PARTS]
    return lines


def conditions(race: Race, results: Sequence[Result]) -> list[str]:
    """Returns the sentences that say under which conditions the numbers were measured."""
    seeds = ", ".join(map(str, race.seeds))
    train, valid, test = race.track.split
    lines = [
        f"Each row has {len(race.seeds)} seeds ({seeds}): mean, lowest to highest, and standard "
        "deviation.",
        f"Trained on the first {train:,} bytes, {race.track.seconds / 60:g} minutes of one CPU "
        f"thread; settings chosen on the next {valid:,} bytes by {race.search_size} runs of each "
        f"contender with seed {race.seeds[0]}; scored once on the {test:,} bytes after them.",
    ]
    contexts = [
        f"{result.setting.length} bytes ({result.contender.name})"
        for result in results
        if result.contender.transformer is not None
    ]
    if contexts:
        lines.append(
            f"Contexts of the Transformers: {', '.join(contexts)}; they are scored on windows that "
            "overlap by three quarters."
        )
    return lines


def caveats(race: Race, rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """Returns the sentences about what the results leave open."""
    lines = []
    names = [result.contender.name for result in results]
    missing = [one.name for one in race.contenders if one.name not in names]
    if missing:
        lines.append(f"Not finished: {'; '.join(missing)}.")
    runs = [row for row in rows if row["kind"] == "run"]
    for result in results:
        found = search_results(race, result.contender, runs)
        if not is_settled(race, found):
            lines.append(
                f"{result.contender.name}: not every neighbour of the best setting was tried."
            )
        ends = [AXES[name] for name in edges(race, result.setting)]
        if ends:
            lines.append(
                f"{result.contender.name}: the best setting is at the end of what was tried "
                f"({', '.join(ends)})."
            )
    references = [row for row in rows if row["kind"] == "reference"]
    if references and not references[0]["quiet"]:
        lines.append("The reference was timed on a machine that had other work.")
    return lines


def origin(rows: Iterable[Row]) -> list[str]:
    """Returns the sentences that say on which machine and with which code the runs were made."""
    runs = [row for row in rows if row["kind"] == "run"]
    facts = [row["machine"] for row in runs]
    processors = sorted({fact["processor"] for fact in facts})
    commits = list(dict.fromkeys(f"`{fact['commit']}`" for fact in facts))
    hours = sum(row["cpu_seconds"] + row["score_cpu_seconds"] for row in runs) / 3600
    return [
        f"{len(runs)} runs, {hours:.1f} hours of one CPU thread on {', '.join(processors)}; "
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}."
    ]


def result_rows(results: Sequence[Result]) -> Iterator[list[str]]:
    """Yields the cells of the main table; see `HEADER`."""
    for result in results:
        row = result.rows[0]
        peak = max(one["peak_bytes"] for one in result.rows)
        yield [
            result.contender.name,
            f"{result.setting.lr:g}; {result.setting.batch_size} x {result.setting.length}",
            f"{row['parameters']:,}",
            f"{row['bytes_read'] / 1e6:.2f}",
            f"{peak / 1e6:.0f}",
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
    """Yields the cells of the table of searches, the best setting of each contender first."""
    runs = [row for row in rows if row["kind"] == "run"]
    for contender in race.contenders:
        results = search_results(race, contender, runs)
        for setting, bits in sorted(results.items(), key=lambda item: item[1]):
            shown = f"{bits:.3f}" if math.isfinite(bits) else "diverged"
            shape = f"{setting.batch_size} x {setting.length}"
            yield [contender.name, f"{setting.lr:g}", shape, shown]


def curves(results: Sequence[Result]) -> dict[str, tuple[list[float], list[float]]]:
    """Returns minutes and mean validation bits over the seeds, by the contender's name."""
    found = {}
    for result in results:
        points = [row["valid_curve"] for row in result.rows]
        minutes = [step * result.rows[0]["step_seconds"] / 60 for step, _ in points[0]]
        columns = zip(*points, strict=True)
        bits = [
            statistics.fmean(math.nan if value is None else value for _, value in column)
            for column in columns
        ]
        found[result.contender.name] = minutes, bits
    return found


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
        yield [record["record"], record["change"], *cells, runs, f"`{record['commit']}`"]


RECORD_HEADER = ["record", "change", "validation", "test", "runs", "commit"]
