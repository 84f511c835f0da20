"""The state of the race: finished runs, missing runs, and an estimate of their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.race_models import missing_options
from benchmarks.race_search import best_setting, edges, is_settled, next_runs, search_results
from benchmarks.race_settings import Contender, Race
from benchmarks.race_timing import ratio, round_ratios, step_seconds, timings_of

SCORING = 0.2  # time of scoring, as a fraction of training, before any run has shown it
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
    missing = 0
    for contender in race.contenders:
        left = missing_count(race, contender, runs)
        missing += left
        yield from _contender_lines(race, contender, rows, runs)
    for trial in race.trials:
        found = [row for row in runs if (row["stage"], row["contender"]) == ("trial", trial.name)]
        if found:
            yield f"trial {trial.name}: {len(found)} of {len(race.seeds)} seeds"
    hours = missing * run_seconds(race, runs) / 3600
    yield f"{missing} runs are missing: about {hours:.1f} hours of one CPU thread"


def missing_count(race: Race, contender: Contender, runs: list[Row]) -> int:
    """Returns the number of runs that a contender still needs."""
    found = len(search_results(race, contender, runs))
    if found < race.search_size:
        return race.search_size - found + len(race.seeds)
    return len(list(next_runs(race, contender, runs)))


def run_seconds(race: Race, runs: list[Row]) -> float:
    """Returns the CPU time of a run with its scoring: the mean so far, or an estimate."""
    spent = [row["cpu_seconds"] + row["score_cpu_seconds"] for row in runs]
    return sum(spent) / len(spent) if spent else (1 + SCORING) * race.track.seconds


def _contender_lines(
    race: Race, contender: Contender, rows: list[Row], runs: list[Row]
) -> Iterator[str]:
    results = search_results(race, contender, runs)
    finals = [row for row in runs if (row["stage"], row["contender"]) == ("final", contender.name)]
    yield (
        f"{contender.name}: search {len(results)} of {race.search_size}, "
        f"final {len(finals)} of {len(race.seeds)}"
    )
    missing = missing_options(contender)
    if missing:
        yield f"  can't run here: sharnn has no option {missing[0]}"
    for setting, bits in sorted(results.items(), key=lambda item: item[1]):
        mark = "  best" if setting == best_setting(results) else ""
        yield f"  {setting.name}: {bits:.4f}{mark}"
    if len(results) == race.search_size:
        best = best_setting(results)
        if not is_settled(race, results):
            yield "  some neighbours of the best setting were not tried"
        if edges(race, best):
            yield f"  the best setting is on the edge of the grid: {', '.join(edges(race, best))}"
    for run in next_runs(race, contender, runs):
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
