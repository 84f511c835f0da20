"""The runs of the race, and which of them come next, given the results so far.

**Search.** Every contender is searched by the same rule with the same number of short runs. First
come the start and the other lengths of the opening. Then each run takes the setting of the grid
that is nearest to the best one so far and was not tried yet, counted in steps along the axes. So
the search moves with the best setting, and tries its neighbours on all sides. At equal distance a
change of the learning rate comes first, then of the bytes in a step, then of the length, and
smaller values before larger ones.

**Check.** A longer run may want a lower rate. So the best setting of the search and the same one
with the next lower rate are trained for the full time, and the better one is final.

**Final.** The final setting is trained for the full time with other seeds, and tested.

**Trial.** A trial has one setting, is as short as a run of the search, and is not tested.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.race_settings import Contender, Race, Setting

STAGES = ("search", "check", "final", "trial")  # in the order in which they run


@dataclass(frozen=True)
class Run:
    """One run of the race.

    Args:
        stage: one of `STAGES`; only a final run is scored on test data.
        contender: name of the contender.
        setting: its setting.
        seed: seed of the parameters and of the choice of text.
    """

    stage: str
    contender: str
    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """Unique name, by which other files refer to the run."""
        return f"{self.stage}: {self.contender}, {self.setting.name}, seed {self.seed}"


def run_of(row: Mapping[str, Any]) -> Run:
    """Returns the run that a row of the results file reports."""
    values = {f.name: row["setting"][f.name] for f in dataclasses.fields(Setting)}
    return Run(row["stage"], row["contender"], Setting(**values), row["seed"])


def device_of(row: Mapping[str, Any]) -> str:
    """Returns ``"cpu"`` or the name of the GPU that took a run's steps."""
    return row.get("device", "cpu")


def results_at(
    race: Race, stage: str, contender: Contender, rows: Iterable[Any]
) -> dict[Setting, float]:
    """Returns the validation bits of a contender's runs by setting; inf for a diverged run.

    Args:
        race: the race.
        stage: ``"search"`` or ``"check"``, whose runs all have the search's seed.
        contender: one of the race's contenders.
        rows: the runs in the results file.
    """
    results: dict[Setting, float] = {}
    for row in rows:
        if (row["stage"], row["contender"]) == (stage, contender.name):
            run = run_of(row)
            if run.seed == race.search_seed:
                results[run.setting] = math.inf if row["valid"] is None else row["valid"]
    return results


def grid(race: Race) -> list[Setting]:
    """Returns every setting of the grid."""
    points = itertools.product(*race.axes.values())
    settings = [Setting(**dict(zip(race.axes, values, strict=True))) for values in points]
    return [setting for setting in settings if setting.step_bytes >= setting.length]


def offsets(race: Race, setting: Setting, other: Setting) -> tuple[int, ...]:
    """Returns the steps along each axis from one setting to another."""
    return tuple(
        values.index(getattr(other, name)) - values.index(getattr(setting, name))
        for name, values in race.axes.items()
    )


def _distance(race: Race, setting: Setting, other: Setting) -> int:
    return sum(map(abs, offsets(race, setting, other)))


def best_setting(results: Mapping[Setting, float]) -> Setting:
    """Returns the setting with the fewest bits, and of equal ones that with the lowest rate."""
    return min(results, key=lambda setting: (results[setting], dataclasses.astuple(setting)))


def next_setting(
    race: Race, contender: Contender, results: Mapping[Setting, float]
) -> Setting | None:
    """Returns the setting that a search tries next, or None if it is complete.

    Args:
        race: the race.
        contender: one of its contenders.
        results: see `results_at`.
    """
    if len(results) >= race.search_size:
        return None
    start = contender.start
    opening = [dataclasses.replace(start, length=length) for length in race.opening]
    for setting in [start, *(one for one in opening if one.step_bytes >= one.length)]:
        if setting not in results:
            return setting
    best = best_setting(results)

    def order(setting: Setting) -> tuple[Any, ...]:
        steps = offsets(race, best, setting)
        return sum(map(abs, steps)), [-abs(step) for step in steps], steps

    untried = [setting for setting in grid(race) if setting not in results]
    return min(untried, key=order, default=None)


def is_settled(race: Race, results: Mapping[Setting, float]) -> bool:
    """Returns True if every neighbour of the best setting in the grid was tried."""
    best = best_setting(results)
    near = [setting for setting in grid(race) if _distance(race, best, setting) == 1]
    return all(setting in results for setting in near)


def edges(race: Race, setting: Setting) -> list[str]:
    """Returns the axes on which a setting has the first or last value of the grid."""
    return [
        name
        for name, values in race.axes.items()
        if getattr(setting, name) in (values[0], values[-1])
    ]


def settings_to_check(race: Race, results: Mapping[Setting, float]) -> tuple[Setting, Setting]:
    """Returns the best setting of a search, and the same one with the next lower learning rate.

    If the best rate is the lowest of the grid, the second setting has the next higher one.

    Args:
        race: the race.
        results: of a complete search; see `results_at`.
    """
    best, rates = best_setting(results), race.axes["lr"]
    index = rates.index(best.lr)
    return best, dataclasses.replace(best, lr=rates[index - 1 if index else 1])


def final_setting(race: Race, contender: Contender, rows: Iterable[Any]) -> Setting | None:
    """Returns the setting of a contender's final runs, or None if its checks are not complete.

    Args:
        race: the race.
        contender: one of its contenders.
        rows: the runs in the results file.
    """
    rows = list(rows)
    results = results_at(race, "search", contender, rows)
    if next_setting(race, contender, results) is not None:
        return None
    checks = results_at(race, "check", contender, rows)
    settings = settings_to_check(race, results)
    if not checks.keys() >= set(settings):
        return None
    return best_setting({setting: checks[setting] for setting in settings})


def next_runs(race: Race, contender: Contender, rows: list[Any]) -> Iterator[Run]:
    """Yields the runs of a contender that are missing and can start now.

    A search yields one run at a time, because the next one depends on its result. The checks follow
    when the search is complete, and the final runs when the checks are.

    Args:
        race: the race.
        contender: one of its contenders or trials.
        rows: the runs in the results file.
    """
    done = {run_of(row) for row in rows}
    yield from (run for run in _stage(race, contender, rows) if run not in done)


def _stage(race: Race, contender: Contender, rows: list[Any]) -> list[Run]:
    """Returns the runs of the stage that a contender has reached, with those that are done."""
    name, seed = contender.name, race.search_seed
    if contender in race.trials:
        return [Run("trial", name, contender.start, seed) for seed in race.trial_seeds]
    results = results_at(race, "search", contender, rows)
    setting = next_setting(race, contender, results)
    if setting is not None:
        return [Run("search", name, setting, seed)]
    final = final_setting(race, contender, rows)
    if final is None:
        return [Run("check", name, one, seed) for one in settings_to_check(race, results)]
    return [Run("final", name, final, seed) for seed in race.seeds]


def in_order(race: Race, contenders: Iterable[Contender], rows: list[Any]) -> list[Run]:
    """Returns the runs of several contenders and trials that can start now, the most urgent first.

    Earlier stages come first, then contenders with a lower turn. Those with the same turn advance
    together.

    Args:
        race: the race.
        contenders: some of its contenders and trials.
        rows: the runs in the results file.
    """
    found = []
    for contender in contenders:
        for index, run in enumerate(next_runs(race, contender, rows)):
            reached = (row for row in rows if row["contender"] == contender.name)
            count = sum(row["stage"] == run.stage for row in reached)
            found.append(((STAGES.index(run.stage), contender.turn, count + index), run))
    return [run for _, run in sorted(found, key=lambda item: item[0])]
