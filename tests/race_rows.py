"""Rows of results files of the race, for tests."""

import dataclasses

from benchmarks.race_search import next_runs

MACHINE = {"processor": "a processor", "commit": "abc1234"}
REFERENCE = {"kind": "reference", "seconds": 0.01, "quiet": True, "machine": MACHINE}


def timing(contender, setting, ms, reference_ms):
    shape = {"length": setting.length, "step_bytes": setting.step_bytes}
    times = {"ms": ms, "reference_ms": reference_ms}
    return {"kind": "timing", "contender": contender, **shape, **times, "machine": MACHINE}


def row_of(run, valid, **more):
    return {
        "kind": "run",
        "name": run.name,
        "stage": run.stage,
        "contender": run.contender,
        "seed": run.seed,
        "setting": dataclasses.asdict(run.setting),
        "valid": valid,
        "parameters": 1000,
        "bytes_read": 2_000_000,
        "peak_bytes": 500_000_000,
        "cpu_seconds": 600.0,
        "score_cpu_seconds": 60.0,
        "step_seconds": 0.3,
        "machine": MACHINE,
        **more,
    }


def search(race, contender, bits_of):
    """Returns the rows of a complete search in which each setting has the bits of a function."""
    rows = []
    while True:
        run = next(next_runs(race, contender, rows))
        if run.stage != "search":
            return rows
        rows.append(row_of(run, bits_of(run.setting)))


def rows_of_race(race, bits_of, seed_step=0.01):
    """Returns the rows of a complete race.

    In a search and a check lower rates are better; a final run and a trial have
    ``bits_of(contender)``, and more with each seed.
    """
    runs = []
    for contender in (*race.contenders, *race.trials):
        while True:
            run = next(next_runs(race, contender, runs), None)
            if run is None:
                break
            if run.stage in ("search", "check"):
                runs.append(row_of(run, 3 + run.setting.lr))
                continue
            bits = bits_of(contender) + seed_step * run.seed
            points = [[10, bits + 1], [20, bits]]
            tested = {"test": bits + 0.1, "valid_curve": points} if run.stage == "final" else {}
            runs.append(row_of(run, bits, **tested))
    return [{"kind": "track", "quick": race.quick}, REFERENCE, *runs]


def bits_of(contender):
    """Returns the bits of a contender in a race that the head wins."""
    if contender.transformer:
        return 2.5
    return 2.0 if contender.has_head else 2.3
