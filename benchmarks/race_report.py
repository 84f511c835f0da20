"""The results of the race as sentences, made from the numbers in its results file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.race_search import (
    STAGES,
    best_setting,
    device_of,
    edges,
    final_setting,
    is_settled,
    results_at,
    run_of,
)
from benchmarks.race_settings import Contender, Race, Setting, make_race

PARTS = {"valid": "validation", "test": "test"}
AXES = {"lr": "learning rate", "length": "length", "step_bytes": "bytes in a step"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The final runs of a contender, one for each seed.

    Args:
        contender: the contender.
        setting: its final setting.
        rows: the runs, in the order of their seeds.
        peak_bytes: peak memory of a process that trained with this setting's segments on a CPU, or
            None.
    """

    contender: Contender
    setting: Setting
    rows: tuple[Row, ...]
    peak_bytes: int | None

    @property
    def name(self) -> str:
        """The contender's name in italics, for sentences: it may contain a comma."""
        return f"*{self.contender.name}*"

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
    """Returns the contenders all of whose runs are complete, the best first.

    Args:
        race: the race.
        rows: the lines of the results file.
    """
    runs = [row for row in rows if row["kind"] == "run"]
    found = []
    for contender in race.contenders:
        setting = final_setting(race, contender, runs)
        if setting is None:
            continue
        by_seed = {
            row["seed"]: row
            for row in runs
            if (row["stage"], row["contender"]) == ("final", contender.name)
            and run_of(row).setting == setting
        }
        if by_seed.keys() >= set(race.seeds):
            finals = tuple(by_seed[seed] for seed in race.seeds)
            found.append(Result(contender, setting, finals, _peak(contender, setting, runs)))
    return sorted(found, key=lambda result: result.mean("valid"))


def _peak(contender: Contender, setting: Setting, runs: Iterable[Row]) -> int | None:
    """Returns the peak memory of runs on a CPU with a setting's segments, or None without one.

    The learning rate and the number of steps have no effect on it.
    """
    shape = contender.name, setting.length, setting.step_bytes
    peaks = [
        row["peak_bytes"]
        for row in runs
        if (row["contender"], row["setting"]["length"], row["setting"]["step_bytes"]) == shape
        and device_of(row) == "cpu"
    ]
    return max(peaks, default=None)


@dataclass(frozen=True)
class Difference:
    """The difference between two contenders on a part of the data.

    Args:
        apart: the second one's mean minus the first one's; not finite if a run diverged.
        error: two standard errors.
        is_shown: the seeds do not overlap, and the means differ by more than the error.
    """

    apart: float
    error: float
    is_shown: bool


def difference(first: Result, second: Result, part: str) -> Difference:
    """Returns the difference between two contenders on ``"valid"`` or ``"test"`` data."""
    one, other = first.bits(part), second.bits(part)
    apart = second.mean(part) - first.mean(part)
    if not math.isfinite(apart):
        return Difference(math.nan, math.nan, False)
    spreads = [result.deviation(part) ** 2 / len(result.rows) for result in (first, second)]
    error = 2 * math.sqrt(sum(spreads))
    overlap = min(one) <= max(other) and min(other) <= max(one)
    return Difference(apart, error, not overlap and abs(apart) > error)


def compare(first: Result, second: Result, parts: Sequence[str] = tuple(PARTS)) -> str:
    """Returns a sentence that compares two contenders, or one for each part if these disagree.

    Args:
        first, second: the contenders.
        parts: ``"valid"``, ``"test"`` or both.
    """
    found = {part: difference(first, second, part) for part in parts}
    names = f"{first.name} and {second.name}"
    if len({(one.is_shown, one.is_shown and one.apart > 0) for one in found.values()}) > 1:
        return " ".join(compare(first, second, [part]) for part in parts)
    diverged = [PARTS[part] for part, one in found.items() if not math.isfinite(one.apart)]
    if diverged:
        return f"{names} can't be compared on {' and '.join(diverged)}: a run diverged."
    if not found[parts[0]].is_shown:
        means = [
            f"{first.mean(part):.3f} and {second.mean(part):.3f} bits per byte on {PARTS[part]}"
            for part in parts
        ]
        return f"No difference between {names} was shown: {', '.join(means)}."
    ahead, behind = (first, second) if found[parts[0]].apart > 0 else (second, first)
    amounts = [
        f"{abs(one.apart):.3f} ± {one.error:.3f} bits per byte on {PARTS[part]}"
        for part, one in found.items()
    ]
    return f"{ahead.name} is ahead of {behind.name} by {' and by '.join(amounts)}."


def rivals(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Returns the pairs that matter.

    They are the best model with a head, with the best one without and the best Transformer, and
    each other model with a head, with the best one without. The best of a kind is the one with the
    lowest mean on validation data.
    """
    heads = [result for result in results if _kind(result.contender) == "head"]
    best: dict[str, Result] = {}
    for result in results:  # the best first
        best.setdefault(_kind(result.contender), result)
    if not heads:
        return []
    pairs = [(heads[0], best[kind]) for kind in ("no head", "Transformer") if kind in best]
    if "no head" in best:
        pairs += [(head, best["no head"]) for head in heads[1:]]
    return pairs


def _kind(contender: Contender) -> str:
    if contender.transformer is not None:
        return "Transformer"
    return "head" if contender.has_head else "no head"


def verdicts(results: Sequence[Result]) -> list[str]:
    """Returns the sentences that say who is ahead, on validation and on test data."""
    if len(results) < 2:
        return []
    best = {part: min(results, key=lambda result: result.mean(part)) for part in PARTS}
    means = {part: f"{result.mean(part):.3f}" for part, result in best.items()}
    if best["valid"] is best["test"]:
        lines = [
            f"{best['test'].name} has the lowest mean on validation ({means['valid']} bits per "
            f"byte) and on test ({means['test']})."
        ]
    else:
        lines = [
            f"{best[part].name} has the lowest mean on {title}: {means[part]} bits per byte."
            for part, title in PARTS.items()
        ]
    return lines + [compare(*pair) for pair in rivals(results)]


def seeds_and_errors(race: Race) -> str:
    """Returns the sentences about what the numbers of a row and after ± mean."""
    seeds = ", ".join(map(str, race.seeds))
    return (
        f"Each row has {len(race.seeds)} seeds ({seeds}): mean, lowest to highest, and standard "
        "deviation. ± means two standard errors of a difference over the seeds; another test text "
        f"could change it by more. Settings were chosen with another seed ({race.search_seed})."
    )


def conditions(race: Race, results: Sequence[Result]) -> list[str]:
    """Returns the sentences that say under which conditions the numbers were measured."""
    train, valid, test = race.track.split
    lines = [
        seeds_and_errors(race),
        f"Trained on the first {train:,} bytes for {race.track.seconds / 60:g} minutes of one CPU "
        f"thread, and scored once on the last {test:,} of the {train + valid + test:,} bytes used.",
        f"Settings were chosen on the {valid:,} bytes between them. Each contender got "
        f"{race.search_size} runs of {race.track.search_seconds:g} seconds, and then two of "
        f"{race.track.seconds / 60:g} minutes: one with the best learning rate found, and one with "
        "the next lower rate (the next higher one, if there is no lower).",
    ]
    return [*lines, *contexts(results)]


def contexts(results: Iterable[Result]) -> list[str]:
    """Returns the sentences about the Transformers' contexts and windows, if there are any."""
    lengths: dict[int, list[str]] = {}
    for result in results:
        if result.contender.transformer is not None:
            lengths.setdefault(result.setting.length, []).append(result.name)
    if not lengths:
        return []
    chosen = "; ".join(f"{length} bytes for {' and '.join(of)}" for length, of in lengths.items())
    return [
        f"Contexts that the searches chose: {chosen}. The Transformers are scored on windows that "
        "overlap by three quarters; the other models carry their state from segment to segment."
    ]


def caveats(race: Race, rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """Returns the sentences about what the results leave open."""
    names = [result.contender.name for result in results]
    missing = [f"*{one.name}*" for one in race.contenders if one.name not in names]
    runs = [row for row in rows if row["kind"] == "run"]
    unsettled, lower, at_the_end = [], [], []
    for result in results:
        found = results_at(race, "search", result.contender, runs)
        if not is_settled(race, found):
            unsettled.append(result.name)
        if result.setting.lr < best_setting(found).lr:
            lower.append(result.name)
        if ends := [AXES[name] for name in edges(race, result.setting)]:
            at_the_end.append(f"{result.name} ({', '.join(ends)})")
    remarks = {
        "Not finished": missing,
        "Some settings next to the best one of the search were not tried": unsettled,
        f"In {race.track.seconds / 60:g} minutes the lower of the two learning rates was better, "
        "and still lower ones were not tried for that time": lower,
        "The final setting is at the end of the grid": at_the_end,
    }
    lines = [f"{remark}: {'; '.join(of)}." for remark, of in remarks.items() if of]
    lines += on_gpus(runs)
    references = [row for row in rows if row["kind"] == "reference"]
    if references and not references[0]["quiet"]:
        lines.append("The reference was timed on a machine that had other work.")
    return lines


def on_gpus(rows: Iterable[Row]) -> list[str]:
    """Returns the sentence that says which runs were made on a GPU; none if all were on a CPU."""
    rows, counts, gpus = list(rows), [], set()
    for stage in STAGES:
        made = [row for row in rows if row.get("stage") == stage]
        on_gpu = [row for row in made if device_of(row) != "cpu"]
        gpus |= {device_of(row) for row in on_gpu}
        if on_gpu:
            names = "; ".join(dict.fromkeys(f"*{row['contender']}*" for row in on_gpu))
            counts.append(f"{len(on_gpu)} of {len(made)} runs of stage *{stage}* ({names})")
    if not counts:
        return []
    return [
        f"{', '.join(counts)} were made on a GPU ({', '.join(sorted(gpus))}): with as many steps "
        "as one CPU thread takes in that time, the same initial weights and the same text, in "
        "bfloat16, but LSTMs in float16. The peak memory is that of a run on a CPU."
    ]


def origin(rows: Iterable[Row]) -> list[str]:
    """Returns the sentences that say on which machine and with which code the runs were made."""
    runs = [row for row in rows if row["kind"] == "run"]
    lines = []
    for device in dict.fromkeys(map(device_of, runs)):
        group = [row for row in runs if device_of(row) == device]
        facts = [row["machine"] for row in group]
        processors = ", ".join(sorted({fact["processor"] for fact in facts}))
        commits = list(dict.fromkeys(f"`{fact['commit']}`" for fact in facts))
        hours = sum(row["cpu_seconds"] + row["score_cpu_seconds"] for row in group) / 3600
        place = f"{hours:.1f} hours of one CPU thread on {processors}"
        lines.append(
            f"{len(group)} runs, {place if device == 'cpu' else f'on {device}'}; "
            f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}."
        )
    return lines


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
