"""The state of the race: finished runs, missing runs, and an estimate of their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.race_models import missing_options
from benchmarks.race_run import VALIDATION_BYTES, VALIDATIONS
from benchmarks.race_search import (
    STAGES,
    best_setting,
    device_of,
    edges,
    final_setting,
    is_settled,
    next_runs,
    results_at,
)
from benchmarks.race_settings import Contender, Race
from benchmarks.race_timing import ratio, round_ratios, step_seconds, timings_of

SCORING = 1.8e-4  # CPU seconds to score a byte, before any run has shown it
Row = dict[str, Any]


def status_lines(race: Race, rows: list[Row]) -> Iterator[str]:
    """Yields the lines that show the state of the race.

    Args:
        race: the race.
        rows: the lines of the results file.
    """
    references = [row for row in rows if row["kind"] == "reference"]
    if references:
        quiet = "a quiet machine" if references[0]["quiet"] else "a machine with other work"
        yield f"reference: {1000 * references[0]['seconds']:.1f} ms a step, on {quiet}"
    else:
        yield "reference: not measured"
    runs = [row for row in rows if row["kind"] == "run"]
    missing = dict.fromkeys(STAGES, 0)
    for one in (*race.contenders, *race.trials):
        is_trial = one in race.trials
        yield from _trial_lines(race, one, runs) if is_trial else _contender_lines(race, one, runs)
        yield from _next_lines(race, one, rows)
        for stage, count in missing_counts(race, one, runs).items():
            missing[stage] += count
    hours = {stage: missing[stage] * run_seconds(race, stage, runs) / 3600 for stage in STAGES}
    for stage in STAGES:
        yield f"{stage}: {missing[stage]} runs are missing, about {hours[stage]:.1f} hours"
    total = sum(missing.values())
    yield f"{total} runs are missing: about {sum(hours.values()):.1f} hours of one CPU thread"


def missing_counts(race: Race, contender: Contender, runs: list[Row]) -> dict[str, int]:
    """Returns the number of runs that a contender or trial still needs, by stage."""
    left = list(next_runs(race, contender, runs))
    if contender in race.trials:
        return {"trial": len(left)}
    counts = {"search": race.search_size, "check": 2, "final": len(race.seeds)}
    counts["search"] -= len(results_at(race, "search", contender, runs))
    if not counts["search"]:
        counts["check"] = sum(run.stage == "check" for run in left)
    if final_setting(race, contender, runs) is not None:
        counts["final"] = len(left)
    return counts


def run_seconds(race: Race, stage: str, runs: list[Row]) -> float:
    """Returns the CPU time of a stage's run with its scoring: the mean so far, or an estimate."""
    found = [row for row in runs if row["stage"] == stage and device_of(row) == "cpu"]
    if found:
        spent = [row["cpu_seconds"] + row["score_cpu_seconds"] for row in found]
        return sum(spent) / len(spent)
    _, valid, test = race.track.split
    scored = valid
    if stage == "final":
        scored += test + VALIDATIONS * min(VALIDATION_BYTES, valid)
    return race.seconds(stage) + SCORING * scored


def _trial_lines(race: Race, trial: Contender, runs: list[Row]) -> Iterator[str]:
    left = len(list(next_runs(race, trial, runs)))
    seeds = len(race.trial_seeds)
    yield f"trial {trial.name}: {seeds - left} of {seeds} seeds"


def _contender_lines(race: Race, contender: Contender, runs: list[Row]) -> Iterator[str]:
    missing = missing_counts(race, contender, runs)
    sizes = {"search": race.search_size, "check": 2, "final": len(race.seeds)}
    done = [f"{stage} {size - missing[stage]} of {size}" for stage, size in sizes.items()]
    yield f"{contender.name}: {', '.join(done)}"
    results = results_at(race, "search", contender, runs)
    for setting, bits in sorted(results.items(), key=lambda item: item[1]):
        mark = "  best" if setting == best_setting(results) else ""
        yield f"  {setting.name}: {bits:.4f}{mark}"
    if not missing["search"] and not is_settled(race, results):
        yield "  some neighbours of the best setting were not tried"
    final = final_setting(race, contender, runs)
    for setting, bits in results_at(race, "check", contender, runs).items():
        mark = "  final" if setting == final else ""
        yield f"  check, {setting.name}: {bits:.4f}{mark}"
    if final is not None and edges(race, final):
        yield f"  the final setting is on the edge of the grid: {', '.join(edges(race, final))}"


def _next_lines(race: Race, contender: Contender, rows: list[Row]) -> Iterator[str]:
    missing = missing_options(contender)
    if missing:
        yield f"  can't run here: sharnn has no option {missing[0]}"
    runs = [row for row in rows if row["kind"] == "run"]
    settings = {run.setting: run for run in reversed(list(next_runs(race, contender, runs)))}
    for run in reversed(settings.values()):
        timings = timings_of(rows, contender.name, run.setting)
        seconds = step_seconds(race, rows, contender.name, run.setting)
        if seconds is None:
            timed = f"timed {len(timings)} of {race.track.rounds} times"
            yield f"  next: {run.name}; its step is {timed}"
        else:
            ratios = round_ratios(timings)
            yield (
                f"  next: {run.name}; a step takes {ratio(timings):.2f} times as long as the "
                f"reference's ({min(ratios):.2f} to {max(ratios):.2f})"
            )
